"""One picture of the copy: the original's compressed data without metadata where that is enough, else a PNG."""

import io
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.preparing.crop import Box
from fluxkit.dataset.preparing.jpeg import strip_jpeg
from fluxkit.dataset.preparing.pixels import (
    NotAPicture,
    decode,
    is_adobe_rgb,
    metadata,
    orientation,
    read_picture,
    to_srgb,
    turned,
)

# zlib's level. A picture of 12 megapixels took 0.9 s of a core at 2, and 5.2 s at the default, 6: 11% smaller.
_PNG_LEVEL = 2


@dataclass(frozen=True)
class Converted:
    """A picture ready to be written.

    Args:
        data: the file's bytes.
        suffix: `.jpg` or `.png`.
        size: width and height in pixels.
        done: what was done, in order: `metadata`, `gps`, `first-picture`, `turned`, those of `pixels.to_srgb`, `crop`.
        notes: what its owner should know: `animation`, `adobe-rgb`, `profile-broken`.
    """

    data: bytes
    suffix: str
    size: tuple[int, int]
    done: tuple[str, ...]
    notes: tuple[str, ...]


def convert(path: Path, box: Box | None) -> Converted:
    """Make the clean picture of an original; nothing is written.

    Args:
        path: the original.
        box: what to cut out of the upright picture, or None.

    Raises:
        NotAPicture: it can't be used; the text says why.
    """
    data = read_picture(path)
    image = decode(data)
    done = sorted(metadata(image), reverse=True)
    notes = ["adobe-rgb"] if is_adobe_rgb(image) else []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        done.append("first-picture")
        notes.append("animation")
    if orientation(image) != 1:
        done.append("turned")
    try:
        pixels, how = to_srgb(turned(image))
        if box is not None:
            pixels = pixels.crop(box)
            how.append("crop")
    except NotAPicture:
        raise
    except MemoryError as error:
        raise NotAPicture("there is not enough memory to convert it") from error
    except Exception as error:  # Pillow's converters raise what they like on odd modes
        raise NotAPicture(f"its colours can't be converted ({str(error)[:120]})") from error
    if "profile-broken" in how:
        how.remove("profile-broken")
        notes.append("profile-broken")
    if not how and "turned" not in done and image.format in ("JPEG", "MPO"):
        stripped = strip_jpeg(data)
        if stripped is not None and decode(stripped).tobytes() == pixels.tobytes():
            return Converted(stripped, ".jpg", pixels.size, tuple(done), tuple(notes))
    encoded = io.BytesIO()
    pixels.save(encoded, format="PNG", compress_level=_PNG_LEVEL)
    return Converted(encoded.getvalue(), ".png", pixels.size, (*done, *how), tuple(notes))
