"""Everything that is measured in one picture, in one pass over its file.

The header comes first; pixels are decoded once, completely (a header alone doesn't show that a copy broke off), and
JPEGs at a half, a quarter or an eighth of their size: libjpeg then still reads every coded coefficient, and fails at a
file that ends early, but leaves out most of the arithmetic.
"""

import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fluxkit.dataset.faces import Face, FaceDetector

if TYPE_CHECKING:
    from PIL import Image

# Raise it when a measurement changes: results in a cache carry it.
VERSION = 1
FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
# The shorter edge, in pixels, at which pictures are compared with each other and with thresholds.
WORK_EDGE = 384
LARGEST_FILE = 1 << 30
# Memory that one picture may take while it is decoded: Pillow stores 4 bytes a pixel of all but plain modes, and
# libwebp keeps three canvases of that size beside Pillow's (measured: 15.8 bytes).
_LARGEST_DECODED = 480 << 20
_BYTES_A_PIXEL = {"L": 1, "P": 1, "1": 1, "I;16": 2}
_BYTES_A_PIXEL_WEBP = 16
# Above this, pictures are decoded one after the other.
_LARGE_DECODED = 64 << 20
_one_large = threading.Lock()

Problem = Literal["empty", "unreadable", "too-large", "other-format"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a picture's content; the same bytes give the same, whatever their name.

    Args:
        problem: why it can't be used, or None; then only `detail` and `format` mean something.
        detail: the reason, in a few words.
        format: Pillow's name of what the bytes are.
        width: in pixels, upright.
        height: in pixels, upright.
        orientation: EXIF orientation, 1 to 8.
        mode: Pillow's mode: `RGB`, `CMYK`, `I;16` …
        bits: a channel, 8 or 16.
        frames: more than 1 is an animation.
        transparent: share of the pixels that are not opaque.
        quality: of a JPEG, libjpeg's 1 to 100; 0 for other formats.
        blocks: `pixels.blockiness`.
        sharpness: `pixels.sharpness`, at a shorter edge of 384 pixels.
        brightness: mean grey level of the largest face, or of the middle.
        black: share of that which is black.
        white: share of that which is white.
        border: `pixels.border`: shares of the edges, left, top, right, bottom.
        text: `pixels.text_share`.
        phash: 64 bits of imagehash's perceptual hash, in hexadecimal.
        faces: largest first; None when no detector looked.
        thumb: `embed.thumb`, and so on.
        background: colours.
        clothes: colours.
        pose: edges.
    """

    problem: Problem | None = None
    detail: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    mode: str = ""
    bits: int = 8
    frames: int = 1
    transparent: float = 0.0
    quality: int = 0
    blocks: float = 1.0
    sharpness: float = 1.0
    brightness: float = 128.0
    black: float = 0.0
    white: float = 0.0
    border: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    text: float = 0.0
    phash: str = ""
    faces: tuple[Face, ...] | None = None
    thumb: bytes = b""
    background: bytes = b""
    clothes: bytes = b""
    pose: bytes = b""


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; never waits for a FIFO's writer.

    Raises:
        OSError: it can't be opened, or is no regular file (`strerror` says which).
    """
    handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(0, "it is a device, a pipe or a folder, no file")
    return handle


def digest(handle: BufferedReader) -> str:
    """Hexadecimal SHA-256 of the file's bytes; the handle is at its start again afterwards."""
    found = hashlib.file_digest(handle, "sha256").hexdigest()
    handle.seek(0)
    return found


def measure(handle: BufferedReader, detector: FaceDetector | None) -> Measured:
    """Measure an opened picture; whatever is wrong with the bytes is in the result, never raised."""
    from PIL import Image, UnidentifiedImageError

    size = os.fstat(handle.fileno()).st_size
    if size == 0:
        return Measured("empty", "0 bytes")
    if size > LARGEST_FILE:
        return Measured("too-large", f"a file of {size >> 20} MB")
    try:
        with Image.open(handle, formats=("JPEG", "PNG", "WEBP")) as image:
            return _measure(image, handle, detector)
    except UnidentifiedImageError:
        return _other_format(handle)
    except Image.DecompressionBombError:
        return Measured("too-large", f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels")
    except Exception as error:  # Pillow's decoders raise what they like on broken bytes
        return Measured("unreadable", " ".join(str(error).split())[:120] or type(error).__name__)


def _other_format(handle: BufferedReader) -> Measured:
    """Name the format by its header; nothing is decoded (Pillow would start Ghostscript for a PostScript file)."""
    from PIL import Image, UnidentifiedImageError

    try:
        handle.seek(0)
        with Image.open(handle) as image:
            if image.format and image.format not in FORMATS:
                return Measured("other-format", format=image.format)
    except Exception as error:
        if not isinstance(error, UnidentifiedImageError):
            return Measured("unreadable", " ".join(str(error).split())[:120])
    return Measured("unreadable", "not a picture format")


def _measure(image: "Image.Image", handle: BufferedReader, detector: FaceDetector | None) -> Measured:
    from fluxkit.dataset.checks.decode import load_small, orientation_of
    from fluxkit.dataset.checks.structure import broken_off

    pixels = image.width * image.height
    needed = pixels * (_BYTES_A_PIXEL_WEBP if image.format == "WEBP" else _BYTES_A_PIXEL.get(image.mode, 4))
    header: dict[str, Any] = {
        "format": image.format or "",
        "mode": image.mode,
        "bits": 16 if image.mode.startswith("I") or _png_depth(handle, image.format) == 16 else 8,
        "frames": 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1)),
        "orientation": orientation_of(image),
    }
    if image.format in ("JPEG", "MPO"):
        header["quality"] = _quality(image)
    elif needed > _LARGEST_DECODED:
        return Measured("too-large", f"{pixels // 1_000_000} million pixels", **header)
    reason = broken_off(handle, image)
    if reason:
        return Measured("unreadable", reason, **header)
    width, height = image.size
    if header["orientation"] >= 5:  # 5 to 8 lie on their side
        width, height = height, width
    header |= {"width": width, "height": height}
    if needed > _LARGE_DECODED:
        with _one_large:
            small = load_small(image, header["orientation"], WORK_EDGE)
    else:
        small = load_small(image, header["orientation"], WORK_EDGE)
    return _look(small, detector, header)


def _look(small: Any, detector: FaceDetector | None, header: dict[str, Any]) -> Measured:
    import numpy as np

    from fluxkit.dataset.checks import embed, hashes, pixels

    work = small.image
    size = (header["width"], header["height"])
    gray = work.convert("L")
    levels = np.asarray(gray)
    faces = None if detector is None else tuple(_scaled(face, work.size, size) for face in detector.detect(gray))
    largest = faces[0] if faces else None
    brightness, black, white = pixels.exposure(_subject(levels, largest, size))
    tiny = work.resize((min(work.width, 96), min(work.height, 96)), 4, reducing_gap=1.0)
    return Measured(
        **header,
        transparent=small.transparent,
        blocks=small.blocks,
        sharpness=pixels.sharpness(levels),
        brightness=brightness,
        black=black,
        white=white,
        border=pixels.border(levels),
        text=pixels.text_share(levels),
        phash=hashes.perceptual_hash(gray),
        faces=faces,
        thumb=embed.thumb(tiny),
        background=embed.background(tiny),
        clothes=embed.clothes(tiny, largest, size),
        pose=embed.pose(tiny),
    )


def _scaled(face: Face, small: tuple[int, int], size: tuple[int, int]) -> Face:
    across, down = size[0] / small[0], size[1] / small[1]
    right, bottom = min(size[0], round(face.right * across)), min(size[1], round(face.bottom * down))
    return Face(round(face.left * across), round(face.top * down), right, bottom, face.score)


def _subject(levels: Any, face: Face | None, size: tuple[int, int]) -> Any:
    """The face, or the middle half of each edge."""
    high, wide = levels.shape
    if face is None:
        return levels[high // 4 : high - high // 4, wide // 4 : wide - wide // 4]
    across, down = wide / size[0], high / size[1]
    rows = slice(int(face.top * down), int(face.bottom * down) + 1)
    return levels[rows, int(face.left * across) : int(face.right * across) + 1]


def _quality(image: Any) -> int:
    from fluxkit.dataset.checks.pixels import jpeg_quality

    tables = getattr(image, "quantization", {})
    first = tables.get(min(tables)) if tables else None
    return jpeg_quality(first) if first and len(first) == 64 else 0


def _png_depth(handle: BufferedReader, format_: str | None) -> int:
    """Bits a channel from a PNG's header chunk: Pillow doesn't tell for colour pictures."""
    if format_ != "PNG":
        return 8
    place = handle.tell()
    handle.seek(24)
    depth = handle.read(1)
    handle.seek(place)
    return depth[0] if depth else 8
