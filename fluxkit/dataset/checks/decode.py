"""From an opened picture to a small upright one; a file that ends early is never let through."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fluxkit.dataset.checks.pixels import blockiness

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
# Longer edges than this in the working copy tell nothing more: a strip of 1 × 60000 pixels is one finding anyway.
_LONGEST = 4096


@dataclass(frozen=True)
class Small:
    """A picture, upright and scaled down.

    Args:
        image: RGB.
        transparent: share of the pixels that are not opaque.
        blocks: `pixels.blockiness`, 1.0 where blocks are too small in it to be seen.
    """

    image: Image.Image
    transparent: float
    blocks: float


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is missing or nonsense."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
        return int(value) if int(value) in _TURNS else 1
    except Exception:  # damaged EXIF is no reason to refuse the picture: viewers and the trainer pass over it
        return 1


def load_small(image: Image.Image, orientation: int, edge: int) -> Small:
    """Decode completely, scale the shorter edge down to `edge`, turn upright.

    Raises:
        Exception: whatever Pillow raises on broken bytes.
    """
    full = image.size
    if image.format in ("JPEG", "MPO"):
        image.draft(None, (edge, edge))
    image.load()
    shrunk = max(1, round(full[0] / image.width))
    blocks = _blocks(image, 8 // shrunk) if shrunk <= 2 else 1.0
    small = _scaled_down(image, edge)
    transparent = _transparent(small)
    small = _rgb(small)
    if orientation in _TURNS:
        small = small.transpose(_TURNS[orientation])
    return Small(small, transparent, blocks)


def _scaled_down(image: Image.Image, edge: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow can't scale evenly
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode in ("P", "PA", "1"):
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    scale = max(min(image.size) / edge, max(image.size) / _LONGEST)
    if scale <= 1:
        return image
    size = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    return image.resize(size, Image.Resampling.BOX)


def _transparent(image: Image.Image) -> float:
    if "A" not in image.getbands():
        return 0.0
    alpha = np.asarray(image.getchannel("A"))
    return round(float((alpha < 250).mean()), 4)


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _blocks(image: Image.Image, period: int) -> float:
    """Block artifacts in the middle, up to 512 × 512 pixels."""
    width, height = image.size
    left, top = max(0, (width - 512) // 2) // period * period, max(0, (height - 512) // 2) // period * period
    middle: Any = image.crop((left, top, min(width, left + 512), min(height, top + 512)))
    if middle.mode not in ("L", "RGB", "RGBA", "CMYK", "LA", "YCbCr"):
        return 1.0
    return blockiness(np.asarray(middle.convert("L")), period)
