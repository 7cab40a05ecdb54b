"""Photographs to test with: scikit-image's samples, shipped in its wheel."""

from functools import cache
from pathlib import Path

import skimage
from PIL import Image

NAMES = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip


@cache
def sample(name: str) -> Image.Image:
    """A sample in RGB, its shorter edge 384 at most; don't change it."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        rgb = image.convert("RGB")
    scale = min(rgb.size) / 384
    size = (round(rgb.width / scale), round(rgb.height / scale))
    return rgb.resize(size, Image.Resampling.BOX) if scale > 1 else rgb
