"""Small hand-made embeddings of a picture: enough to say that two share a background, clothes or a pose.

Colour histograms of regions and a histogram of oriented gradients (Dalal and Triggs 2005,
https://doi.org/10.1109/CVPR.2005.177), a few hundred bytes a picture. They compare pictures of one folder with each
other; they know nothing about what is shown.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fluxkit.dataset.faces import Face

_LEVELS = 4  # colour levels a channel
_CELLS, _ORIENTATIONS = 6, 6
THUMB_EDGE = 8


def thumb(image: Image.Image) -> bytes:
    """The picture at 8 × 8 pixels, RGB: 192 bytes."""
    # Not Pillow's tobytes(): its 192 bytes hold on to a block of 64 KB, shrunk in place, 7 KB a picture after a while.
    return np.asarray(image.resize((THUMB_EDGE, THUMB_EDGE), Image.Resampling.BOX)).tobytes()


def background(image: Image.Image) -> bytes:
    """The colours along the left, right and upper edges, without the lower third where the body is: 64 bytes."""
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BOX))[:21]
    ring = np.ones(pixels.shape[:2], dtype=bool)
    ring[4:, 6:-6] = False
    return _colours(pixels[ring])


def clothes(image: Image.Image, face: Face | None, size: tuple[int, int]) -> bytes:
    """The colours below the face, or where a body is in most portraits: 64 bytes, none if that is out of the frame.

    Args:
        image: the upright picture, scaled down.
        face: the largest one.
        size: the upright picture's size, in pixels, that the face's box is in.
    """
    left, top, right, bottom = 0.3, 0.72, 0.7, 1.0
    if face is not None:
        wide, high = (face.right - face.left) / size[0], (face.bottom - face.top) / size[1]
        left, right = face.left / size[0] - wide * 0.4, face.right / size[0] + wide * 0.4
        top, bottom = face.bottom / size[1] + high * 0.5, face.bottom / size[1] + high * 1.7
    box = (max(0.0, left), top, min(1.0, right), min(1.0, bottom))
    if box[3] - box[1] < 0.06 or box[2] - box[0] < 0.06:
        return b""
    width, height = image.size
    part = image.resize(
        (16, 16), Image.Resampling.BOX, (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    )
    return _colours(np.asarray(part).reshape(-1, 3))


def pose(image: Image.Image) -> bytes:
    """The directions of the edges in 6 × 6 cells: 216 bytes."""
    edge = _CELLS * 8
    gray = np.asarray(image.convert("L").resize((edge, edge), Image.Resampling.BOX), dtype=np.float32)
    down, across = np.gradient(gray)
    strength = np.hypot(down, across)
    direction = np.floor(np.arctan2(down, across) % np.pi / np.pi * _ORIENTATIONS).astype(int) % _ORIENTATIONS
    cells = np.zeros((_CELLS, _CELLS, _ORIENTATIONS), dtype=np.float32)
    for orientation in range(_ORIENTATIONS):
        own = np.where(direction == orientation, strength, 0)
        cells[:, :, orientation] = own.reshape(_CELLS, 8, _CELLS, 8).sum(axis=(1, 3))
    # The root tames a few strong edges; then all pictures have the same length, whatever their contrast.
    values = np.sqrt(cells).ravel()
    length = float(np.linalg.norm(values))
    return _quantized(values / length if length else values)


def _colours(pixels: NDArray[np.uint8]) -> bytes:
    """A histogram of 4 × 4 × 4 colours, each pixel shared between its neighbours; the root of each share."""
    place = pixels.reshape(-1, 3).astype(np.float32) / 255 * (_LEVELS - 1)
    low = np.minimum(place.astype(int), _LEVELS - 2)
    part = place - low
    counts = np.zeros(_LEVELS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner), part, 1 - part), axis=1)
        index = (low + np.array(corner)) @ np.array([_LEVELS * _LEVELS, _LEVELS, 1])
        counts += np.bincount(index, weights=weight, minlength=_LEVELS**3)
    return _quantized(np.sqrt(counts / max(1, len(place))))


def _quantized(values: NDArray[np.floating]) -> bytes:
    levels: NDArray[np.uint8] = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return levels.tobytes()
