"""What is measured in a picture's pixels: sharpness, exposure, block artifacts, borders, overlaid text.

Every function takes NumPy arrays of 8 bits and returns a plain number; the thresholds are where the findings are made.
They were set on scikit-image's sample photographs and pictures made from them (`tests/dataset/checks/test_pixels.py`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
_TILE = 64
_BLUR_WIDTH = 9
# Mean absolute difference between neighbours, in grey levels: below it a tile is sky, wall or out of focus.
_TEXTURED = 1.5
_SHARPEST = 85
_STEEP, _FLOOR = 12, 0.5
_SMALLEST_FOR_TEXT = 192

# The luminance table of ITU-T T.81, Annex K.1; libjpeg scales it by quality.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
    51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120,
    101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def jpeg_quality(table: Sequence[int]) -> int:
    """The libjpeg quality, 1 to 100, whose luminance table is nearest to this one of 64 values.

    Tables of other encoders get the quality of libjpeg with the same average coarseness.
    """
    # 255 is as coarse as a table of 8 bits gets: those entries say nothing.
    told = [(given, standard) for given, standard in zip(table, _LUMINANCE, strict=True) if given < 255]
    if not told:
        return 1
    scale = 100 * sum(given for given, _ in told) / sum(standard for _, standard in told)
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return max(1, min(100, round(quality)))


def sharpness(gray: Gray) -> float:
    """How sharp the sharpest parts are: 0 (only blur) to 1.

    The blur effect of Crete et al. 2007 (https://doi.org/10.1117/12.702790), 1 minus it, a tile of 64 pixels at a time:
    a portrait's blurred background is no fault, so the tile that exceeds 85% of the textured ones counts.
    """
    values = gray.astype(np.float32)
    across, changes_across = _lost_to_blur(values, axis=1)
    down, changes_down = _lost_to_blur(values, axis=0)
    lost, changes = _tiles(across + down), _tiles(changes_across + changes_down)
    textured = changes > 2 * _TEXTURED * _TILE * _TILE
    if not textured.any():
        textured = changes >= changes.max()
    shares = lost[textured] / np.maximum(changes[textured], 1)
    return round(float(np.percentile(shares, _SHARPEST)), 4)


def _lost_to_blur(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Along one axis: how much of each difference between neighbours a blur takes away, and the differences."""
    from scipy.ndimage import uniform_filter1d

    blurred = uniform_filter1d(values, _BLUR_WIDTH, axis=axis, mode="nearest")
    changes = _differences(values, axis)
    return np.maximum(changes - _differences(blurred, axis), 0), changes


def _differences(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Between each value and the next; 0 at the end."""
    found = np.zeros_like(values)
    if axis:
        np.abs(values[:, 1:] - values[:, :-1], out=found[:, :-1])
    else:
        np.abs(values[1:] - values[:-1], out=found[:-1])
    return found


def _tiles(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums over tiles of 64 × 64; a picture smaller than that is one tile."""
    high, wide = values.shape
    rows, columns = max(1, high // _TILE), max(1, wide // _TILE)
    cut = values[: rows * (high // rows), : columns * (wide // columns)]
    sums: NDArray[np.float32] = cut.reshape(rows, high // rows, columns, wide // columns).sum(axis=(1, 3))
    return sums


def exposure(gray: Gray) -> tuple[float, float, float]:
    """Of the part that matters (the face, or the middle): the mean grey level, the shares that are black and white.

    Black is 5 and below, white 250 and above, of 255.
    """
    if not gray.size:
        return 128.0, 0.0, 0.0
    black, white = float((gray <= 5).mean()), float((gray >= 250).mean())
    return round(float(gray.mean()), 1), round(black, 3), round(white, 3)


def blockiness(gray: Gray, period: int) -> float:
    """How much stronger the steps at block borders are than elsewhere: about 1 without blocks.

    Args:
        gray: the decoded picture, not rescaled.
        period: width of a block in its pixels: 8, or 4 when a JPEG was decoded at half size.
    """
    return round(min(_steps(gray, period), _steps(gray.T, period)), 3)


def _steps(gray: Gray, period: int) -> float:
    # Edges of things are few and steep, block borders many and shallow.
    changes = np.minimum(np.abs(np.diff(gray.astype(np.int16), axis=1)), _STEEP).mean(axis=0)
    changes = changes[: len(changes) // period * period]
    if len(changes) < 8 * period:
        return 1.0
    # Blocks begin at multiples of the period in a whole picture; a crop shifts them.
    phases = np.sort(changes.reshape(-1, period).mean(axis=0))
    return float((phases[-1] + _FLOOR) / (np.median(phases) + _FLOOR))


def border(gray: Gray) -> tuple[float, float, float, float]:
    """Shares of the edge lengths that are a border of one colour: left, top, right, bottom.

    A border is even to 6 levels and ends in a line along most of the edge; a plain backdrop does neither. In grey: a
    JPEG's colours bleed over 16 pixels.
    """
    values = gray.astype(np.int16)
    return _even(values.T), _even(values), _even(values.T[::-1]), _even(values[::-1])


def _even(rows: NDArray[np.int16]) -> float:
    limit = len(rows) * 2 // 5
    first = np.median(rows[0])
    for index in range(limit):
        if (np.abs(rows[index] - first) > 6).mean() > 0.02:
            # JPEG blurs the line over the rest of a block.
            beyond = np.abs(rows[index : index + 7] - first) > 18
            return round(index / len(rows), 4) if index and beyond.mean(axis=1).max() >= 0.5 else 0.0
    return 0.0


def text_share(gray: Gray) -> float:
    """The share of the picture's area that looks like lines of overlaid text.

    Text is a row of strokes: many steep steps up and down close together, much of it of one very dark or very light
    ink, wider than it is high. It is no reading: a fence can pass for text, and slanted text is missed.
    """
    if min(gray.shape) < _SMALLEST_FOR_TEXT:
        return 0.0
    return round(max(_lines(gray), _lines(np.ascontiguousarray(gray[::2, ::2]))), 4)


def _lines(gray: Gray) -> float:
    from scipy import ndimage

    values = gray.astype(np.int16)
    steps = np.zeros(values.shape, dtype=bool)
    steps[:, 1:-1] = np.abs(values[:, 2:] - values[:, :-2]) > 70
    density = ndimage.uniform_filter(steps.astype(np.float32), size=(3, 17))
    labels, count = ndimage.label(density > 0.3)
    area = 0.0
    for box in ndimage.find_objects(labels) if count else []:
        high, wide = box[0].stop - box[0].start, box[1].stop - box[1].start
        shaped = high >= 6 and wide >= 3.5 * high and high <= 0.14 * len(gray)
        if shaped and _one_ink(gray[box], steps[box]):
            area += high * wide
    return float(area / gray.size)


def _one_ink(line: Gray, steps: NDArray[Any]) -> bool:
    counts = np.bincount((line >> 4).ravel(), minlength=16) / line.size
    pairs = counts[:-1] + counts[1:]
    return bool(max(pairs[:3].max(), pairs[12:].max()) > 0.12 and steps.mean() > 0.25)
