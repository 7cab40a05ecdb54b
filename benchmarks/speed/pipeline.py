"""The pipeline around whichever transformer and VAE a variant measures: diffusers', or fluxkit's own for its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline

from benchmarks.speed.device import BF16, DEVICE, clock, free
from benchmarks.speed.flux import Flux, flux_of, full_encoders, full_vae, quick_decoder
from fluxkit.sampling.decoding import picture
from fluxkit.sampling.fastflux import FastFlux
from fluxkit.sampling.light import denoise
from fluxkit.sampling.tables import Condition
from fluxkit.sampling.tiny_flux import make_tiny_flux

PROMPT = "behitek, a portrait of a man in a garden at dusk, 85 mm, soft light"
GUIDANCE = 3.0
TEXT_TOKENS = 512


@dataclass(frozen=True)
class Setting:
    """What pictures are made.

    Args:
        size: pixels a side.
        steps: of a picture.
        tiny: by a tiny model.
    """

    size: int
    steps: int
    tiny: bool

    @property
    def image_tokens(self) -> int:
        """Of a picture."""
        return (self.size // 16) ** 2

    @property
    def tokens(self) -> int:
        """Of a picture and its text."""
        return self.image_tokens + TEXT_TOKENS

    def condition(self, steps: int) -> Condition:
        """The prompt in so many steps."""
        return Condition(PROMPT, self.size, self.size, steps, GUIDANCE)


FULL, TINY = Setting(1024, 20, tiny=False), Setting(64, 4, tiny=True)


@dataclass
class Pipeline:
    """The pipeline and what is kept beside it.

    Args:
        setting: of the pictures.
        pipe: diffusers' pipeline; its transformer is the variant's.
        plain_vae: diffusers' own.
        quick_vae: fluxkit's decoder with the same weights.
        vae: which of them decodes.
        embeds: T5's (1, tokens, width), once encoded.
        pooled: CLIP's (1, width), once encoded.
    """

    setting: Setting
    pipe: Any
    plain_vae: Any
    quick_vae: Any
    vae: Any
    embeds: Any = None
    pooled: Any = None

    def encode(self) -> float:
        """Encode the prompt, with encoders of the full size that stay until `drop_encoders`; returns seconds."""
        if not self.setting.tiny:
            self.pipe.text_encoder, self.pipe.text_encoder_2 = full_encoders()
        for encoder in (self.pipe.text_encoder, self.pipe.text_encoder_2):
            encoder.to(DEVICE)
        began = clock()
        with torch.no_grad():
            self.embeds, self.pooled, _ = self.pipe.encode_prompt(
                prompt=PROMPT, prompt_2=PROMPT, max_sequence_length=TEXT_TOKENS
            )
        return clock() - began

    def drop_encoders(self) -> None:
        """Free the text encoders."""
        self.pipe.text_encoder = self.pipe.text_encoder_2 = None
        free()

    def clear(self) -> None:
        """Free what a variant has loaded."""
        self.pipe.transformer, self.vae = None, self.plain_vae
        free()

    def denoise(self, seeds: tuple[int, ...], steps: int | None = None) -> torch.Tensor:
        """Packed latents of these seeds, from the prompt's embeddings, in the loop that goes with the transformer."""
        embeds = self.embeds.expand(len(seeds), -1, -1)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        size, steps = self.setting.size, steps or self.setting.steps
        with torch.no_grad():
            if isinstance(self.pipe.transformer, FastFlux):
                return denoise(
                    self.pipe.transformer, self.pipe.scheduler.config, embeds, (size, size), steps, generators
                )
            latents: torch.Tensor = self.pipe(
                prompt_embeds=embeds,
                pooled_prompt_embeds=self.pooled.expand(len(seeds), -1),
                width=size,
                height=size,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=generators,
                output_type="latent",
            ).images
        return latents

    def decode(self, packed: torch.Tensor) -> Any:
        """One picture."""
        size = self.setting.size
        with torch.no_grad():
            latents = self.pipe._unpack_latents(packed, size, size, self.pipe.vae_scale_factor)
            latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
            pixels = self.vae.decode(latents.to(BF16), return_dict=False)[0]
            return picture(pixels)


def make_pipeline(setting: Setting, work: Path) -> tuple[Pipeline, Flux]:
    """The pipeline without a transformer, and the sizes of the one that belongs into it.

    Args:
        setting: of the pictures.
        work: a folder for the tiny model, whose tokenizers and scheduler serve the full one too.
    """
    pipe: Any = FluxPipeline.from_pretrained(make_tiny_flux(work / "tiny-flux"), dtype=BF16)
    pipe.set_progress_bar_config(disable=True)
    flux = flux_of(pipe.transformer if setting.tiny else None)
    pipe.transformer = None
    if not setting.tiny:
        pipe.vae = full_vae()
    pipe.vae.to(DEVICE)
    return Pipeline(setting, pipe, pipe.vae, quick_decoder(pipe.vae), pipe.vae), flux
