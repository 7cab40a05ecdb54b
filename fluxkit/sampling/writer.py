"""PNGs that say how they were made: the `parameters` text that viewers read, and JSON for programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit import __version__
from fluxkit.files import atomic_path
from fluxkit.sampling.plan import Identity, Job

if TYPE_CHECKING:
    from PIL.Image import Image


def describe(job: Job, identity: Identity) -> dict[str, Any]:
    """What the `fluxkit` chunk and the manifest say of an image."""
    return {
        "prompt_name": job.prompt_name,
        "prompt": job.prompt,
        "seed": job.seed,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": job.guidance_scale,
        "width": job.width,
        "height": job.height,
        "base": identity.base,
        "revision": identity.revision,
        "adapter": job.adapter,
        "adapters": [asdict(one) for one in identity.adapters],
        "strength": job.strength,
        "quantization": identity.quantization,
        "wrapped": identity.wrapped,
        "fluxkit": __version__,
    }


def parameters(job: Job, identity: Identity) -> str:
    """The `parameters` text in AUTOMATIC1111's form: the prompt, then one line of `Key: value` pairs.

    Values holding a comma, a colon or a newline are JSON-quoted, as its parser expects.
    """
    pairs: dict[str, object] = {
        "Steps": job.num_inference_steps,
        "Sampler": "Euler",
        "CFG scale": 1.0,  # FLUX.1-dev's guidance is distilled: no second pass
        "Distilled CFG Scale": job.guidance_scale,
        "Seed": job.seed,
        "Size": f"{job.width}x{job.height}",
        "Model": Path(identity.base).name,
        "Quantization": identity.quantization,
    }
    if identity.adapters:
        pairs["Lora hash"] = " ".join(one.sha256[:12] for one in identity.adapters)
        pairs["Lora strength"] = job.strength
    pairs["Version"] = f"fluxkit {__version__}"
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())
    return f"{job.prompt}\n{line}"


def write_png(path: Path, image: "Image", job: Job, identity: Identity) -> None:
    """Write a picture with its metadata; the file is whole or absent.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    # iTXt is UTF-8; tEXt is Latin-1 and would lose an emoji. `prompt` is ComfyUI's graph: never written.
    info.add_itxt("parameters", _encodable(parameters(job, identity)))
    info.add_itxt("fluxkit", json.dumps(describe(job, identity), ensure_ascii=True))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value


def _encodable(text: str) -> str:
    """Lone surrogates (a prompt from a broken terminal) have no UTF-8; a NUL ends a text chunk."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
