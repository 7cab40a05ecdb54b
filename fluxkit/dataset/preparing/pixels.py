"""From whatever a file holds to upright 8-bit sRGB pixels without alpha, and what had to be done for that."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image, ImageCms

_ORIENTATION, _GPS, _INTEROPERABILITY = 0x0112, 0x8825, 0xA005
# A profile that moves no colour by more than this many of 255 steps is sRGB, whatever it is called.
_SRGB_TOLERANCE = 2
_LARGEST_FILE = 512 << 20
_METADATA = ("exif", "xmp", "XML:com.adobe.xmp", "photoshop", "comment", "mp", "icc_profile", "Raw profile type exif")


class NotAPicture(ValueError):
    """The picture can't be used; the text says why, for people."""


@cache
def reads_heic() -> bool:
    """Let Pillow read iPhone photos, where the extra `fluxkit[heic]` is installed; whether it is."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow warns about odd EXIF and large pictures; neither keeps a picture from being used.

    The filters belong to the whole process: set them around threads, not in them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_picture(path: Path) -> bytes:
    """A picture file's bytes.

    Raises:
        NotAPicture: it is no ordinary file, empty, larger than any photo, or may not be read.
    """
    try:
        if not path.is_file():  # a pipe would be waited for without end
            raise NotAPicture("it is no ordinary file")
        size = path.stat().st_size
        if size == 0:
            raise NotAPicture("the file is empty (0 bytes)")
        if size > _LARGEST_FILE:
            raise NotAPicture(f"the file is larger than {_LARGEST_FILE >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise NotAPicture(f"the file can't be read ({error.strerror})") from error


def decode(data: bytes) -> "Image.Image":
    """The picture, decoded to its last byte; the first one of an animation.

    Raises:
        NotAPicture: it is damaged, cut off, no picture, or too large to decode safely.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Image.DecompressionBombError as error:
        raise NotAPicture("it has more than 178 million pixels, too many to decode safely") from error
    except Exception as error:  # Pillow's decoders raise what they like on broken bytes
        short = "not a picture format" if type(error).__name__ == "UnidentifiedImageError" else str(error)[:120]
        raise NotAPicture(f"it is damaged, incomplete or no picture ({short})") from error
    return image


def turned(image: "Image.Image") -> "Image.Image":
    """The picture as its EXIF orientation wants it seen; itself when it is upright."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if orientation(image) != 1 else image


def orientation(image: "Image.Image") -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        value = int(image.getexif().get(_ORIENTATION, 1) or 1)
    except Exception:  # broken EXIF raises what it likes
        return 1
    return value if 1 <= value <= 8 else 1


def metadata(image: "Image.Image") -> set[str]:
    """What the file says beside its pixels: `metadata`, and `gps` where it says where it was taken."""
    found = {"metadata"} if any(image.info.get(name) for name in _METADATA) else set()
    try:
        if image.getexif().get_ifd(_GPS):
            found.add("gps")
    except Exception:  # broken EXIF: it goes with the rest
        found.add("metadata")
    return found


def is_adobe_rgb(image: "Image.Image") -> bool:
    """Whether a camera says "Adobe RGB" in EXIF alone, without a profile to convert from."""
    if image.info.get("icc_profile"):
        return False
    try:
        return str(image.getexif().get_ifd(_INTEROPERABILITY).get(1, "")).startswith("R03")
    except Exception:
        return False


def to_srgb(image: "Image.Image") -> tuple["Image.Image", list[str]]:
    """Convert to 8-bit sRGB, and flatten transparency on white.

    Returns:
        A picture of mode RGB that carries no metadata, and what was done: of `8-bit`, `alpha`, `cmyk`, `grayscale`,
        `palette`, `srgb`, `profile-broken`; empty when the pixels are as they were.

    Raises:
        NotAPicture: its values have no known range (floating point, 32-bit integers).
    """
    from PIL import Image

    profile = image.info.get("icc_profile")
    image, done = _eight_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
        if alpha.getextrema()[0] == 255:
            alpha = None
        else:
            done.append("alpha")
    if image.mode in ("P", "PA"):
        done.append("palette")
        image = image.convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    done += [name for mode, name in (("CMYK", "cmyk"), ("L", "grayscale")) if image.mode == mode]
    if profile:
        image, what = _through_profile(image, profile)
        done += what
    image = image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=alpha)
        image = white
    if image.info:
        image = image.copy()
        image.info = {}  # a PNG's writer would take profile and transparency from here
    return image, done


def _eight_bit(image: "Image.Image") -> tuple["Image.Image", list[str]]:
    if image.mode == "F":
        raise NotAPicture("its colours are floating point numbers without a known range")
    if not image.mode.startswith("I"):
        return image, []
    wide = image.convert("I")
    lowest, highest = wide.getextrema()
    if lowest < 0 or highest > 65535:  # type: ignore[operator]
        raise NotAPicture("its colours are 32-bit numbers without a known range")
    return wide.point(lambda value: value / 257 + 0.5).convert("L"), ["8-bit"]


def _through_profile(image: "Image.Image", data: bytes) -> tuple["Image.Image", list[str]]:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        transform = _transform(profile, image.mode)
        if image.mode == "RGB" and _changes_nothing(transform):
            return image, []
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A grey profile on a colour picture, or bytes that are no profile: viewers ignore them as well.
        return image, ["profile-broken"]
    return (image, []) if converted is None else (converted, ["srgb"])


def _transform(profile: "ImageCms.ImageCmsProfile", mode: str) -> "ImageCms.ImageCmsTransform":
    from PIL import ImageCms

    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _changes_nothing(transform: "ImageCms.ImageCmsTransform") -> bool:
    """Whether a transform leaves a grid of 17³ colours where they are."""
    from PIL import Image, ImageChops, ImageCms

    steps = [round(index * 255 / 16) for index in range(17)]
    colors = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
    grid = Image.frombytes("RGB", (17 * 17, 17), colors)
    after = ImageCms.applyTransform(grid, transform)
    if after is None:
        return False
    moved: Any = ImageChops.difference(grid, after).getextrema()
    return all(highest <= _SRGB_TOLERANCE for _, highest in moved)
