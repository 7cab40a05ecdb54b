"""Latents to pictures, one at a time."""

from typing import TYPE_CHECKING, Any

from fluxkit.errors import GpuMemoryError
from fluxkit.sampling.plan import Job

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def decode(pipe: Any, job: Job, packed: "torch.Tensor") -> "torch.Tensor | None":
    """The pixels of one row of latents, (1, 3, height, width); None when memory ran out."""
    import torch

    vae = pipe.vae
    # (1, h/16 · w/16, 64) → (1, 16, h/8, w/8): FLUX packs 2×2 latents into one token.
    rows, columns = job.height // 16, job.width // 16
    latents = packed.view(1, rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
    latents = latents.reshape(1, -1, rows * 2, columns * 2)
    latents = latents / vae.config.scaling_factor + vae.config.shift_factor
    try:
        with torch.no_grad():
            pixels: torch.Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    except torch.OutOfMemoryError:
        return None
    return pixels


def picture(pixels: "torch.Tensor") -> "Image | None":
    """The picture of pixels (1, 3, height, width) between -1 and 1; None where they hold NaN or infinity."""
    import torch

    if not pixels.isfinite().all():
        return None
    from PIL import Image

    # What diffusers' image processor makes, to the byte; it rounds on the CPU: 12 MB to fetch and 30 ms, not 3 MB.
    shown = (pixels[0] * 0.5 + 0.5).clamp(0, 1).float()
    rounded = (shown * 255).round().to(torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).contiguous().cpu().numpy())


def too_large(job: Job) -> GpuMemoryError:
    """What is said when not even one picture fits."""
    return GpuMemoryError(
        f"One image of {job.width}×{job.height} does not fit into the GPU's memory.",
        fix="Close other programs that use the GPU, or make smaller images: --size 768x768.",
    )
