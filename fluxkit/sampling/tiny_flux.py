"""A FLUX.1-dev of half a million random weights: the real architecture and file layout, in seconds on a CPU.

Rehearsals, the demo and the tests run the real trainer and the real batcher with it, without a download. Sizes as
measured in SimpleTuner rehearsals: 2 double and 2 single blocks, 4 heads × 16, text encoders of width 32.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.files import read_json, write_json, write_text
from fluxkit.sampling.quiet import quiet_libraries

if TYPE_CHECKING:
    from diffusers import FluxPipeline

_WIDTH = 32
_CLIP_LENGTH = 77
_T5_LENGTH = 512


def make_tiny_flux(folder: Path, *, seed: int = 0) -> Path:
    """Make a tiny random FLUX.1-dev in diffusers format, or reuse the one that is there.

    Args:
        folder: where the model goes; whole or absent, whatever happens in between.
        seed: the same seed gives the same weights.

    Returns:
        `folder`.

    Raises:
        UserError: `folder` holds something else, or can't be written.
    """
    if (folder / "model_index.json").is_file():
        if not (folder / "tokenizer" / "vocab.json").is_file():  # made by fluxkit 0.1.0
            _serve_transformers_4(folder)
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is in the way: it is no model.", fix="Move it away, or choose another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}", fix="Check the folder's permissions.") from error
    try:
        _pipeline(seed).save_pretrained(building)
        _name_tokenizers(building)
        _serve_transformers_4(building)
        building.chmod(0o755)
        try:
            os.replace(building, folder)  # noqa: PTH105 - replaces an empty folder; Path.rename says nothing of it
        except OSError:
            # Another process was faster: its model is the same.
            if not (folder / "model_index.json").is_file():
                raise
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}", fix="Free some disk space, then try again.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _pipeline(seed: int) -> "FluxPipeline":
    """The pipeline in memory, weights in bfloat16, the caller's random state untouched."""
    import torch

    quiet_libraries()  # first: the advice about torchvision comes with the import
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    clip_tokenizer, t5_tokenizer = _clip_tokenizer(), _t5_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),  # sums to the head's size
        )
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_tokenizer),
                hidden_size=_WIDTH,
                intermediate_size=64,
                projection_dim=_WIDTH,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=_CLIP_LENGTH,
                bos_token_id=clip_tokenizer.bos_token_id,
                eos_token_id=clip_tokenizer.eos_token_id,
                pad_token_id=clip_tokenizer.pad_token_id,
            )
        )
        t5 = T5EncoderModel(
            T5Config(
                vocab_size=len(t5_tokenizer),
                d_model=_WIDTH,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(16, 16, 32, 32),
            layers_per_block=1,
            latent_channels=16,
            norm_num_groups=8,
            sample_size=64,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    # FLUX.1-dev's own settings: the shift grows with the number of image tokens.
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    return FluxPipeline(
        scheduler=scheduler,
        vae=vae.to(torch.bfloat16),
        text_encoder=clip.to(torch.bfloat16),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5.to(torch.bfloat16),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.to(torch.bfloat16),
    )


def _clip_tokenizer() -> Any:
    """CLIP's tokenizer with the byte-level alphabet and no merges: any text, one token a byte."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=_CLIP_LENGTH)


def _t5_tokenizer() -> Any:
    """T5's tokenizer with single characters as its pieces."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=_T5_LENGTH)


def _name_tokenizers(folder: Path) -> None:
    """Name the tokenizers' classes as FLUX.1-dev's index does: transformers 4 and 5 both know these names."""
    path = folder / "model_index.json"
    index = read_json(path)
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    index["tokenizer_2"] = ["transformers", "T5TokenizerFast"]
    write_json(path, index)


def _serve_transformers_4(folder: Path) -> None:
    """Add what transformers 4 (SimpleTuner up to 4.0) reads: CLIP's vocabulary in files, no empty list of T5's."""
    config = folder / "tokenizer_2" / "tokenizer_config.json"
    write_json(config, {key: value for key, value in read_json(config).items() if value != []})
    clip = folder / "tokenizer"
    write_text(clip / "merges.txt", "#version: 0.2\n")
    write_json(clip / "vocab.json", read_json(clip / "tokenizer.json")["model"]["vocab"])
