"""FLUX's denoising loop without diffusers' pipeline around it, for the transformer rearranged for speed.

It makes what diffusers' FluxPipeline makes, to the bit (tested), and is called as it is. What it saves is the start:
diffusers' pipeline imports transformers, peft and much of torch that no picture needs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fluxkit.files import read_json
from fluxkit.hub import local_file, snapshot
from fluxkit.sampling.schedule import sigmas
from fluxkit.sampling.vae import load_vae

if TYPE_CHECKING:
    import torch

_FILES = ["scheduler/*", "vae/*", "model_index.json"]


class LightPipeline:
    """Scheduler and VAE of a base model; the transformer is put in later.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.

    Raises:
        OSError: or ValueError, where the base is damaged.
    """

    def __init__(self, base: str, revision: str | None) -> None:
        config = _file(base, "scheduler/scheduler_config.json", revision)
        self.scheduler = SimpleNamespace(config=read_json(config))
        self.vae: Any = load_vae(_file(base, "vae/config.json", revision).parent)
        self.transformer: Any = None

    def __call__(
        self,
        *,
        prompt_embeds: "torch.Tensor",
        width: int,
        height: int,
        num_inference_steps: int,
        generator: "Sequence[torch.Generator]",
        **_unused: Any,
    ) -> SimpleNamespace:
        """Denoise.

        Args:
            prompt_embeds: T5's, (batch, tokens, width) on the device.
            width: of the pictures, in pixels.
            height: of the pictures, in pixels.
            num_inference_steps: denoising steps.
            generator: one a picture, on the CPU.

        Returns:
            `images`: packed latents, (batch, height/16 · width/16, 64).
        """
        images = denoise(
            self.transformer, self.scheduler.config, prompt_embeds, (width, height), num_inference_steps, generator
        )
        return SimpleNamespace(images=images)


def denoise(
    transformer: Any,
    scheduler: Mapping[str, Any],
    prompt_embeds: "torch.Tensor",
    size: tuple[int, int],
    steps: int,
    generators: "Sequence[torch.Generator]",
) -> "torch.Tensor":
    """Packed latents, (batch, height/16 · width/16, 64).

    Args:
        transformer: a `FastFlux` that was told what comes.
        scheduler: diffusers' configuration of it.
        prompt_embeds: T5's, (batch, tokens, width) on the device.
        size: width and height of the pictures, in pixels.
        steps: denoising steps.
        generators: one a picture, on the CPU.
    """
    import torch

    (width, height), (device, dtype) = size, (prompt_embeds.device, prompt_embeds.dtype)
    rows, columns = height // 16, width // 16
    channels = transformer.config.in_channels // 4
    shape = (1, channels, 2 * rows, 2 * columns)
    noise = torch.cat([torch.randn(shape, generator=one, dtype=dtype) for one in generators])
    packed = noise.view(len(noise), channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    latents = packed.reshape(len(noise), rows * columns, channels * 4).to(device)
    places = torch.zeros(rows, columns, 3)
    places[..., 1] += torch.arange(rows)[:, None]
    places[..., 2] += torch.arange(columns)[None, :]
    image_ids = places.reshape(-1, 3).to(device, dtype)
    text_ids = torch.zeros(prompt_embeds.shape[1], 3, device=device, dtype=dtype)
    shares = torch.from_numpy(sigmas(scheduler, width, height, steps)).to(device)
    given = {"encoder_hidden_states": prompt_embeds, "txt_ids": text_ids, "img_ids": image_ids}
    # A tensor on the device, first in the product, as diffusers has it: a CPU rounds it to bfloat16 there.
    for length in shares.diff():
        velocity = transformer(**given, hidden_states=latents)[0]
        latents = (latents.float() + length * velocity).to(velocity.dtype)
    return latents


def _file(base: str, name: str, revision: str | None) -> Path:
    """A file of the base, downloaded where it is not on this machine."""
    found = local_file(base, name, revision)
    if found is None and not Path(base).expanduser().is_dir():
        found = snapshot(base, revision, _FILES) / name
    if found is None or not found.is_file():
        raise OSError(f"it has no {name}")
    return found
