"""What is to be made: one job for each image, and a name for it that two runs agree on."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fluxkit.errors import UserError

Quantization = Literal["int8", "fp8", "nf4", "none"]

# torch.Generator.manual_seed takes 64 bits.
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Job:
    """One image.

    Args:
        prompt_name: what the prompt is called in `prompts.toml`; it does not change the image.
        prompt: the text, as it reaches the text encoders.
        seed: of this image's own noise, drawn on the CPU.
        width: in pixels, a multiple of 16.
        height: in pixels, a multiple of 16.
        num_inference_steps: denoising steps.
        guidance_scale: FLUX.1-dev's distilled guidance.
        strength: what the adapter's change of the weights is multiplied by.
    """

    prompt_name: str
    prompt: str
    seed: int
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    strength: float


@dataclass(frozen=True)
class Identity:
    """What the images of one plan have in common.

    Args:
        base: Hub id or folder of the base model.
        revision: of the Hub model.
        adapter_sha256: of the adapter's file; None without an adapter.
        quantization: of the transformer's weights.
    """

    base: str
    revision: str | None
    adapter_sha256: str | None
    quantization: str


@dataclass(frozen=True)
class SamplingPlan:
    """A batch of images to make.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision; None for the newest.
        adapter: the adapter's file; None for the base model alone.
        quantize: how the transformer's weights are held while sampling.
        jobs: the images.
        batch_size: images denoised at once; `auto` fits it to the GPU.
        out: folder for images, manifest and gallery.
    """

    base: str | Path
    revision: str | None
    adapter: Path | None
    quantize: Quantization
    jobs: tuple[Job, ...]
    batch_size: int | Literal["auto"]
    out: Path


def job_key(job: Job, identity: Identity) -> str:
    """Hexadecimal hash of all that decides how an image looks; stable across runs and machines."""
    facts = {**asdict(job), **asdict(identity), "format": 1}
    del facts["prompt_name"]
    for name in ("guidance_scale", "strength"):
        facts[name] = float(facts[name])  # 3 and 3.0 are the same image
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def plan_jobs(
    prompts: Mapping[str, str],
    seeds: Sequence[int],
    strengths: Sequence[float] = (1.0,),
    *,
    width: int = 1024,
    height: int = 1024,
    num_inference_steps: int = 20,
    guidance_scale: float = 3.0,
) -> tuple[Job, ...]:
    """Every prompt with every seed at every strength.

    Args:
        prompts: text by name.
        seeds: one image each.
        strengths: of the adapter.
        width: in pixels.
        height: in pixels.
        num_inference_steps: denoising steps.
        guidance_scale: FLUX.1-dev's distilled guidance.

    Raises:
        UserError: a value that no image can be made with.
    """
    for name, pixels in (("width", width), ("height", height)):
        if pixels < 16 or pixels % 16:
            nearest = max(16, round(pixels / 16) * 16)
            raise UserError(
                f"The {name} {pixels} is no multiple of 16, and FLUX works on 16-pixel patches.",
                fix=f"The nearest that works is {nearest}.",
            )
    if num_inference_steps < 1:
        raise UserError("An image needs at least 1 inference step.", fix="20 is a good number.")
    for seed in seeds:
        if not 0 <= seed <= _MAX_SEED:
            raise UserError(f"{seed} is no seed.", fix=f"Seeds are whole numbers from 0 to {_MAX_SEED}.")
    for name, text in prompts.items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"The prompt {name!a} is not valid UTF-8.", fix="Type it again.") from error
    for number in (*strengths, guidance_scale):
        if not math.isfinite(number):
            raise UserError(f"{number} is no strength or guidance scale.", fix="Use a plain number such as 1.0.")
    return tuple(
        Job(name, text, seed, width, height, num_inference_steps, guidance_scale, strength)
        for strength in strengths
        for name, text in prompts.items()
        for seed in seeds
    )
