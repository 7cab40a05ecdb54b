"""Write a full-size FLUX.1-dev with random weights in diffusers format, and a LoKr adapter that fits it.

Memory and speed don't depend on the values, so this measures what the real model would, without its licence.

    python benchmarks/full_flux.py FOLDER

makes FOLDER/base (33 GB) and FOLDER/pytorch_lora_weights.safetensors (342 modules). Weights are drawn on the GPU
where there is one. Sizes are those of FLUX.1-dev's config files. With --small-t5, T5 has 1 layer of 24: 9 GB less to
write, for starts that know their prompt already.
"""

import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from fluxkit.sampling.tiny_flux import make_tiny_flux

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
T5 = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
VAE_BLOCKS = (128, 256, 512, 512)


def main(folder: Path, *, tiny: bool = False, small_t5: bool = False) -> None:
    """Write both; `tiny` writes the tiny model and an adapter of it, `small_t5` a text encoder of one layer."""
    started = time.monotonic()
    base = make_tiny_flux(folder / "base")  # tokenizers, scheduler and layout; the models are replaced
    torch.manual_seed(0)
    if tiny:
        model = FluxTransformer2DModel.from_pretrained(base, subfolder="transformer")
        return _write_adapter(model, folder / "pytorch_lora_weights.safetensors")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        _write_adapter(transformer, folder / "pytorch_lora_weights.safetensors")
        _save(transformer, base / "transformer")
        clip = CLIPTextConfig(**CLIP, vocab_size=49408, hidden_act="quick_gelu", projection_dim=768)
        _save(CLIPTextModel(clip), base / "text_encoder")
        t5 = T5Config(
            **{**T5, "num_layers": 1 if small_t5 else T5["num_layers"]},
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
        _save(T5EncoderModel(t5), base / "text_encoder_2")
        _save(
            AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=VAE_BLOCKS,
                layers_per_block=2,
                latent_channels=16,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
                sample_size=1024,
            ),
            base / "vae",
        )
    print(f"wrote {folder} in {time.monotonic() - started:.0f} s on {DEVICE}")


def _save(model: torch.nn.Module, folder: Path) -> None:
    for old in folder.glob("*"):
        old.unlink()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    count = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(folder)  # type: ignore[operator]
    print(f"  {folder.name}: {count / 1e9:.2f} B parameters")


def _write_adapter(transformer: torch.nn.Module, path: Path) -> None:
    """A full-matrix LoKr on the linears that SimpleTuner's default preset adapts, named as LyCORIS names them."""
    tensors = {}
    for name, module in transformer.named_modules():
        attention = ".attn." in name
        if not isinstance(module, torch.nn.Linear) or not (attention or ".ff" in name):
            continue
        factor = 16 if attention else 8
        key = "lycoris_" + name.replace(".", "_")
        shape = (module.out_features // factor, module.in_features // factor)
        tensors[f"{key}.lokr_w1"] = torch.randn(factor, factor) * 0.02
        tensors[f"{key}.lokr_w2"] = torch.randn(*shape) * 0.02
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
    print(f"  adapter: {len(tensors) // 3} modules, {sum(t.numel() for t in tensors.values()) / 1e6:.1f} M parameters")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tiny="--tiny" in sys.argv, small_t5="--small-t5" in sys.argv)
