"""What is to be made: one job for each image, and a name for it that two runs agree on."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from fluxkit.errors import UserError
from fluxkit.sampling.tensor_cache import digest

Quantization = Literal["int8", "int8-dynamic", "fp8", "nf4", "none"]
ImageFormat = Literal["png", "webp", "jpeg"]

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
        strength: what the adapters' change of the weights is multiplied by.
        adapter: the entry of `SamplingPlan.adapters` that it is made with; "" for the base model alone. A name, which
            does not change the image: the files behind it do.
    """

    prompt_name: str
    prompt: str
    seed: int
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    strength: float
    adapter: str = ""


@dataclass(frozen=True)
class AdapterWeight:
    """One adapter of a stack.

    Args:
        path: the adapter's file.
        weight: its share; a job's strength multiplies it.
    """

    path: Path
    weight: float = 1.0


@dataclass(frozen=True)
class AdapterContent:
    """One adapter of a stack, by content.

    Args:
        sha256: of the adapter's file.
        weight: its share; a job's strength multiplies it.
    """

    sha256: str
    weight: float = 1.0


@dataclass(frozen=True)
class Identity:
    """What all jobs of one plan and one of its adapters have in common.

    Args:
        base: Hub id or folder of the base model.
        revision: of the Hub model.
        adapters: what is added to it, in order; empty for the base model alone.
        quantization: of the transformer's weights.
        wrapped: adapters beside quantized weights instead of merged into them, which rounds differently.
        image_format: of the files.
        first_block_cache: threshold of the first-block cache; None where it is off.
    """

    base: str
    revision: str | None
    adapters: tuple[AdapterContent, ...]
    quantization: str
    wrapped: bool = False
    image_format: ImageFormat = "png"
    first_block_cache: float | None = None


@dataclass(frozen=True)
class SamplingPlan:
    """A batch of images to make.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision; None for the newest.
        adapters: by name ("final", "checkpoint-2000"), what is added to the base model; several files make a stack.
            The base model alone is the name "" and needs no entry.
        quantize: how the transformer's weights are held while sampling.
        jobs: the images.
        batch_size: images denoised at once; `auto` fits it to the GPU.
        out: folder for images, manifest and gallery.
        image_format: of the files; WebP and JPEG are smaller and not exact.
        metadata: whether the files say how they were made; the manifest does in any case.
        first_block_cache: threshold of the first-block cache, which changes the pictures; None leaves it off.
    """

    base: str | Path
    revision: str | None
    adapters: Mapping[str, tuple[AdapterWeight, ...]]
    quantize: Quantization
    jobs: tuple[Job, ...]
    batch_size: int | Literal["auto"]
    out: Path
    image_format: ImageFormat = "png"
    metadata: bool = True
    first_block_cache: float | None = None

    @property
    def wrapped(self) -> bool:
        """Whether adapters stay beside the quantized weights: where checkpoints or strengths are compared.

        Merged before int8, an adapter's own effect was off by 28% (at |ΔW|/|W| = 1.4%), wrapped by 1%; and a swap
        needs no new quantized base. It depends on the whole plan, not on what is missing: a resumed run must not mix.
        """
        # Rearranged for speed, the transformer takes adapters merged only.
        rearranged = self.quantize in ("fp8", "int8-dynamic", "nf4") or self.first_block_cache is not None
        return not rearranged and compares(self.jobs)

    def stack(self, name: str) -> tuple[AdapterWeight, ...]:
        """What the jobs of that adapter name add to the base model."""
        return self.adapters[name] if name else ()


def compares(jobs: Sequence[Job]) -> bool:
    """Whether several adapters or strengths are set side by side."""
    return len({(job.adapter, job.strength) for job in jobs}) > 1


def identities(plan: SamplingPlan) -> dict[str, Identity]:
    """What decides how a plan's images look, apart from the job: by adapter name.

    Raises:
        UserError: an adapter can't be read.
    """
    folder = Path(plan.base).expanduser()
    base = str(folder.resolve()) if folder.is_dir() else str(plan.base)
    wrapped = plan.wrapped
    found = {}
    for name in dict.fromkeys(job.adapter for job in plan.jobs):
        contents = tuple(AdapterContent(_adapter_sha256(one.path), one.weight) for one in plan.stack(name))
        found[name] = Identity(
            base, plan.revision, contents, plan.quantize, wrapped, plan.image_format, plan.first_block_cache
        )
    return found


def _adapter_sha256(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:
        raise UserError(f"The adapter {path} can't be read: {error.strerror}.", fix="Check the path.") from error


def job_key(job: Job, identity: Identity) -> str:
    """Hexadecimal hash of all that decides how an image looks; stable across runs and machines."""
    # Not `asdict`, which copies deeply: most of the time that ten thousand keys took.
    facts: dict[str, Any] = {**vars(job), **vars(identity), "format": 1}
    for name in ("prompt_name", "adapter", "adapters", "wrapped", "image_format", "first_block_cache"):
        del facts[name]
    for name in ("guidance_scale", "strength"):
        facts[name] = float(facts[name])  # 3 and 3.0 are the same image
    # One whole adapter, merged, hashes as it did before there were stacks: older folders stay valid.
    stack = [[one.sha256, float(one.weight)] for one in identity.adapters]
    facts["adapter_sha256"] = stack[0][0] if len(stack) == 1 and stack[0][1] == 1.0 else None
    if stack and facts["adapter_sha256"] is None:
        facts["adapters"] = stack
    if identity.wrapped:
        facts["wrapped"] = True
    if identity.image_format != "png":
        facts["image_format"] = identity.image_format
    if identity.first_block_cache is not None:
        facts["first_block_cache"] = float(identity.first_block_cache)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def plan_jobs(
    prompts: Mapping[str, str],
    seeds: Sequence[int],
    strengths: Sequence[float] = (1.0,),
    *,
    adapters: Sequence[str] = ("",),
    width: int = 1024,
    height: int = 1024,
    num_inference_steps: int | Sequence[int] = 20,
    guidance_scale: float | Sequence[float] = 3.0,
) -> tuple[Job, ...]:
    """Every prompt with every seed, adapter, strength, number of steps and guidance.

    The base model alone ("") is there once, at strength 0: it has no strength.

    Args:
        prompts: text by name.
        seeds: one image each.
        strengths: of the adapters.
        adapters: names of `SamplingPlan.adapters`; "" is the base model alone.
        width: in pixels.
        height: in pixels.
        num_inference_steps: denoising steps, or several to compare.
        guidance_scale: FLUX.1-dev's distilled guidance, or several to compare.

    Raises:
        UserError: a value that no image can be made with.
    """
    steps = (num_inference_steps,) if isinstance(num_inference_steps, int) else tuple(num_inference_steps)
    scales = (guidance_scale,) if isinstance(guidance_scale, int | float) else tuple(guidance_scale)
    for name, pixels in (("width", width), ("height", height)):
        if pixels < 16 or pixels % 16:
            nearest = max(16, round(pixels / 16) * 16)
            raise UserError(
                f"The {name} {pixels} is no multiple of 16, and FLUX works on 16-pixel patches.",
                fix=f"The nearest that works is {nearest}.",
            )
    if min(steps, default=0) < 1:
        raise UserError("An image needs at least 1 inference step.", fix="20 is a good number.")
    for seed in seeds:
        if not 0 <= seed <= _MAX_SEED:
            raise UserError(f"{seed} is no seed.", fix=f"Seeds are whole numbers from 0 to {_MAX_SEED}.")
    for name, text in prompts.items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(f"The prompt {name!a} is not valid UTF-8.", fix="Type it again.") from error
    for number in (*strengths, *scales):
        if not math.isfinite(number):
            raise UserError(f"{number} is no strength or guidance scale.", fix="Use a plain number such as 1.0.")
    models = dict.fromkeys((name, strength if name else 0.0) for name in adapters for strength in strengths)
    return tuple(
        Job(name, text, seed, width, height, step, scale, strength, adapter)
        for (adapter, strength), step, scale in product(models, steps, scales)
        for name, text in prompts.items()
        for seed in seeds
    )
