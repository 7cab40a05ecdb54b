"""FLUX.1-dev with random weights, made on the device: speed and memory don't depend on the values."""

import zlib
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.speed.device import BF16, DEVICE, on_device
from fluxkit.sampling.fast_vae import quicken
from fluxkit.sampling.vae import Decoder


@dataclass(frozen=True)
class Flux:
    """The transformer, by its sizes.

    Args:
        config: diffusers' arguments for it.
        shapes: of its weights, by diffusers' names.
        std: of its weights' values.
    """

    config: dict[str, Any]
    shapes: dict[str, torch.Size]
    std: float

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.config["num_attention_heads"])

    @property
    def head_width(self) -> int:
        """Numbers of one head."""
        return int(self.config["attention_head_dim"])

    @property
    def width(self) -> int:
        """Numbers of a token."""
        return self.heads * self.head_width

    @property
    def doubles(self) -> int:
        """Blocks with a stream each for text and image."""
        return int(self.config["num_layers"])

    @property
    def singles(self) -> int:
        """Blocks with one stream."""
        return int(self.config["num_single_layers"])

    def source(self, name: str) -> torch.Tensor:
        """A weight, the same whenever it is asked for."""
        shape = self.shapes[name]
        if len(shape) == 1 and "norm_" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=BF16, device=DEVICE)
        generator = torch.Generator(DEVICE).manual_seed(zlib.crc32(name.encode()))
        return torch.randn(shape, generator=generator, device=DEVICE, dtype=BF16).mul_(self.std)

    def diffusers_model(self) -> Any:
        """Diffusers' transformer in bf16."""
        with torch.device("meta"):
            model = FluxTransformer2DModel.from_config(self.config)
        model.load_state_dict({name: self.source(name) for name in self.shapes}, assign=True)
        # Not in the state: made from the config.
        model.requires_grad_(False).eval()
        return model


def flux_of(tiny: Any | None) -> Flux:
    """A FLUX of the full size, or of a tiny transformer's."""
    if tiny is not None:
        config = dict(tiny.config)
    else:
        with torch.device("meta"):
            config = dict(FluxTransformer2DModel(guidance_embeds=True).config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    with torch.device("meta"):
        state = FluxTransformer2DModel.from_config(config).state_dict()
    return Flux(config, {key: value.shape for key, value in state.items()}, 0.02 if tiny is None else 0.1)


def full_vae() -> Any:
    """A VAE of FLUX.1's size."""
    with on_device():
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, scaling_factor=0.3611,
            shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024,
        ).eval()  # fmt: skip


def quick_decoder(vae: Any) -> Decoder:
    """What fluxkit decodes with, with the weights of diffusers' VAE."""
    decoder = Decoder(vae.config).to(DEVICE, BF16).requires_grad_(False).eval()
    state = vae.state_dict()
    decoder.load_state_dict({key: state[f"decoder.{key}"] for key in decoder.state_dict()})
    quicken(decoder, fused=DEVICE.type == "cuda")
    return decoder


def full_encoders() -> tuple[Any, Any]:
    """CLIP-L and T5-XXL by size."""
    clip = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    t5 = T5Config(
        d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, vocab_size=32128,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    with on_device():
        models = CLIPTextModel(clip), T5EncoderModel(t5)
    for model in models:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
        model.eval().requires_grad_(False)
    return models
