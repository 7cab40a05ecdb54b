"""Pictures to try fluxkit with: drawn portraits, the same on every machine, with captions."""

import colorsys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluxkit.files import atomic_path, write_text

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_Box = Callable[[float, float, float, float], tuple[float, float, float, float]]

_HUES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")  # an eighth of the circle each
_CLOTHES = ("red", "green", "navy", "white", "yellow", "purple", "orange", "grey")
_SKIN, _HAIR, _EYE = (232, 190, 160), (74, 48, 36), (40, 60, 80)
_COLORS = {
    "red": (196, 52, 52), "green": (58, 140, 84), "navy": (36, 52, 104), "white": (240, 240, 236),
    "yellow": (232, 196, 64), "purple": (124, 72, 160), "orange": (226, 124, 44), "grey": (128, 132, 138),
}  # fmt: skip


def make_demo_dataset(folder: Path, trigger: str, subject: str, *, count: int = 6, size: int = 1024) -> None:
    """Draw `count` pictures of one face in varied places and clothes, each with its caption.

    Args:
        folder: made when it is missing; files of the same names are replaced.
        trigger: each caption begins with it.
        subject: what the captions call the person.
        count: how many pictures.
        size: edge of the square PNGs, in pixels.

    Raises:
        UserError: the folder can't be written.
    """
    for index in range(count):
        path = folder / f"demo-{index + 1:02d}.png"
        clothes, background = _CLOTHES[index % len(_CLOTHES)], _HUES[round(_hue(index) * 8) % 8]
        with atomic_path(path) as temporary:
            _portrait(index, size, _COLORS[clothes]).save(temporary)
        caption = f"{trigger} a drawn portrait of a {subject} in a {clothes} shirt, smiling, {background} background"
        write_text(path.with_suffix(".txt"), caption + "\n")


def _portrait(index: int, size: int, clothes: tuple[int, int, int]) -> "Image.Image":
    from PIL import ImageDraw

    image = _background(index, size)
    draw = ImageDraw.Draw(image)
    # Everything is laid out on a square of 100 x 100; the face moves and grows a little from picture to picture.
    shift, scale = (index * 7 % 11) - 5, 1 + (index * 5 % 7 - 3) / 40

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        left, right = ((edge - 50) * scale + 50 + shift for edge in (left, right))
        return left * size / 100, top * size / 100, right * size / 100, bottom * size / 100

    draw.ellipse(box(14, 72, 86, 130), fill=clothes)
    draw.rectangle(box(43, 60, 57, 78), fill=_SKIN)
    draw.ellipse(box(27, 12, 73, 58), fill=_HAIR)
    draw.ellipse(box(31, 20, 69, 70), fill=_SKIN)
    draw.pieslice(box(30, 14, 70, 50), 180, 360, fill=_HAIR)
    _face(draw, box, size)
    return image


def _face(draw: "ImageDraw.ImageDraw", box: _Box, size: int) -> None:
    line = max(1, size // 90)
    for left in (38, 54):
        draw.ellipse(box(left, 39, left + 8, 44), fill=(250, 250, 250))
        draw.ellipse(box(left + 2.5, 39.5, left + 6, 43.5), fill=_EYE)
        draw.arc(box(left - 1, 34, left + 9, 42), 200, 340, fill=_HAIR, width=line)
    draw.arc(box(47, 44, 53, 54), 20, 160, fill=(190, 140, 112), width=line)
    draw.chord(box(41, 50, 59, 63), 15, 165, fill=(176, 70, 70))


def _background(index: int, size: int) -> "Image.Image":
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    hue = _hue(index)
    for row in range(size):
        height = row / size
        draw.line((0, row, size, row), fill=_rgb(hue, 0.45 - 0.25 * height, 0.65 + 0.3 * height))
    sun = (index * 37 % 100) / 100 * size
    draw.ellipse((sun - size / 8, size / 16, sun + size / 8, size * 5 / 16), fill=_rgb(hue + 0.1, 0.35, 0.95))
    return image


def _hue(index: int) -> float:
    return index * 0.381966 % 1  # the golden angle: neighbours differ, and none comes twice


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)
