"""One picture: does it decode to the last byte, is it what its name says, is it large enough?"""

import warnings
from collections.abc import Iterator
from pathlib import Path

from fluxkit.dataset.model import DatasetRules, Finding, ImageFacts

# Pillow's names for the bytes behind each suffix; MPO is the JPEG of phones that append a depth map.
_FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".png": ("PNG",), ".webp": ("WEBP",)}
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_EXIF_ORIENTATION = 0x0112


def read_image(path: Path) -> tuple[ImageFacts | None, list[Finding]]:
    """Decode a picture completely: a header alone doesn't show that a copy broke off.

    Returns:
        Its facts, or None when it can't be used, and what was found.
    """
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            fix = "Copy it again from the camera or phone, or delete it."
            return None, [Finding("image.empty", "error", path, "The file is empty (0 bytes).", fix)]
        with warnings.catch_warnings():
            # Pillow warns about odd EXIF and about large pictures; what matters of that is a finding here.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                format_ = image.format or "unknown"
                image.load()
                orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1) or 1)
                width, height = image.size
    except Image.DecompressionBombError:
        message = "The picture is too large to decode safely (more than 178 million pixels)."
        return None, [Finding("image.too-large", "error", path, message, "Scale it down to 4096 pixels or less.")]
    except Exception as error:  # Pillow's decoders raise what they like on broken bytes
        message = f"The picture can't be read: it is damaged, incomplete or no picture ({_short(error)})."
        fix = "Copy it again from the camera or phone, or delete it."
        return None, [Finding("image.unreadable", "error", path, message, fix)]
    if orientation >= 5:  # 5 to 8 lie on their side
        width, height = height, width
    facts = ImageFacts(path, width, height, format_, orientation)
    return facts, list(_look(facts))


def size_findings(facts: ImageFacts, rules: DatasetRules) -> Iterator[Finding]:
    """The resolutions that the trainer would silently leave this picture out of.

    The rendered `minimum_image_size` is the resolution itself, and a square crop needs both edges to reach it.
    """
    missed = [resolution for resolution in rules.resolutions if min(facts.width, facts.height) < resolution]
    if missed:
        sizes = " and ".join(str(resolution) for resolution in sorted(missed, reverse=True))
        message = f"{facts.width}×{facts.height} is too small for {sizes}: it would silently be left out there."
        fix = (
            f"Use a version with both edges ≥ {max(missed)}, remove it, or leave {sizes} out of [dataset] resolutions."
        )
        yield Finding("image.too-small", "error", facts.path, message, fix)


def _look(facts: ImageFacts) -> Iterator[Finding]:
    path = facts.path
    expected = _FORMATS[path.suffix.lower()]
    if facts.format not in expected:
        suffix = _SUFFIXES.get(facts.format)
        fix = f'Rename it to "{path.stem}{suffix}".' if suffix else "Save it as JPG, PNG or WebP."
        message = f"The name says {path.suffix}, but the contents are {facts.format}."
        yield Finding("image.mislabelled", "error", path, message, fix)
    if path.suffix != path.suffix.lower():
        message = f"SimpleTuner before 4.5.0 doesn't see {path.suffix}, and would silently leave the photo out."
        fix = f'Rename it to "{path.stem}{path.suffix.lower()}".'
        yield Finding("image.upper-case", "warning", path, message, fix)
    if facts.orientation != 1:
        message = f"Turned by its EXIF orientation ({facts.orientation}), not in its pixels."
        fix = "Check that it looks upright in the trainer's samples; saving it upright makes it certain."
        yield Finding("image.orientation", "info", path, message, fix)


def _short(error: Exception) -> str:
    # Pillow's message for unknown contents repeats the whole path.
    return "not a picture format" if type(error).__name__ == "UnidentifiedImageError" else str(error)[:120]
