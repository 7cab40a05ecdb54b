"""One picture's findings: can it be used at all, does the trainer take it as it is, is it good to learn from?"""

import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from fluxkit.dataset.checks.engine import MeasuredFile
from fluxkit.dataset.checks.measure import FORMATS, Measured
from fluxkit.dataset.model import DatasetRules, Finding, ImageFacts
from fluxkit.dataset.scan import without_suffix

# Pillow's names for the bytes behind each suffix; MPO is the JPEG of phones that append a depth map.
_FORMATS = {".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".png": ("PNG",), ".webp": ("WEBP",)}
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_COPY_AGAIN = "Copy it again from the camera or phone, or delete it."


def facts_of(file: MeasuredFile) -> ImageFacts | None:
    """What is known of a picture; None when it can't be used."""
    measured = file.measured
    if measured.problem:
        return None
    return ImageFacts(
        file.path,
        measured.width,
        measured.height,
        measured.format,
        measured.orientation,
        file.digest,
        measured.mode,
        measured.quality or None,
        measured.sharpness,
        measured.phash,
        measured.faces,
    )


def usable_findings(path: Path, measured: Measured) -> Iterator[Finding]:
    """Why a picture can't be used, or may be misunderstood by the trainer."""
    if measured.problem == "empty":
        yield Finding("image.empty", "error", path, "The file is empty (0 bytes).", _COPY_AGAIN)
    elif measured.problem == "too-large":
        message = f"The picture is too large to decode safely ({measured.detail})."
        yield Finding("image.too-large", "error", path, message, "Scale it down to 4096 pixels or less.")
    elif measured.problem == "unreadable":
        message = f"The picture can't be read: it is damaged, incomplete or no picture ({measured.detail})."
        yield Finding("image.unreadable", "error", path, message, _COPY_AGAIN)
    yield from _name_findings(path, measured)
    if not measured.problem:
        yield from _kind_findings(path, measured)


def size_findings(facts: ImageFacts, rules: DatasetRules) -> Iterator[Finding]:
    """The resolutions that the trainer would silently leave this picture out of, and what the crop leaves out.

    The rendered `minimum_image_size` is the resolution itself, and a square crop needs both edges to reach it.
    """
    edge = min(facts.width, facts.height)
    missed = [resolution for resolution in rules.resolutions if edge < resolution]
    if missed:
        sizes = " and ".join(str(resolution) for resolution in sorted(missed, reverse=True))
        factor = max(missed) / edge
        made_up = round(100 * (1 - 1 / factor**2))
        message = f"{facts.width}×{facts.height} is too small for {sizes}: it would silently be left out there."
        fix = (
            f"Use a version with both edges ≥ {max(missed)}, remove it, or leave {sizes} out of [dataset] resolutions. "
            f"Scaled up {factor:.1f} times, {made_up}% of its pixels would be made up: the LoRA learns the softness."
        )
        yield Finding("image.too-small", "error", facts.path, message, fix)
    longer = max(facts.width, facts.height)
    if rules.centre_crop and longer >= 2 * edge:
        lost = round(100 * (1 - edge / longer))
        message = (
            f"{facts.width}×{facts.height} is a strip: the square that training cuts out leaves out {lost}% of it."
        )
        yield Finding("image.aspect", "warning", facts.path, message, "Crop it yourself, around the person.")


def twin_findings(paths: Iterable[Path]) -> Iterator[Finding]:
    """Names that are one and the same on other disks: they differ in case, or in how accents are encoded."""
    seen: dict[str, Path] = {}
    for path in paths:
        name = unicodedata.normalize("NFC", without_suffix(path)).casefold()
        other = seen.setdefault(name, path)
        if without_suffix(other) != without_suffix(path):
            message = f'"{other.name}" and "{path.name}" are the same name on Windows and macOS disks.'
            yield Finding("image.name-twin", "warning", path, message, "Rename one, and its caption.", (other,))


def _name_findings(path: Path, measured: Measured) -> Iterator[Finding]:
    known = measured.problem is None or measured.problem == "other-format" or measured.format in FORMATS
    if known and measured.format and measured.format not in _FORMATS[path.suffix.lower()]:
        suffix = _SUFFIXES.get(measured.format)
        fix = f'Rename it to "{path.stem}{suffix}".' if suffix else "Save it as JPG, PNG or WebP."
        message = f"The name says {path.suffix}, but the contents are {measured.format}."
        yield Finding("image.mislabelled", "error", path, message, fix)
    if path.suffix != path.suffix.lower():
        message = f"SimpleTuner before 4.5.0 doesn't see {path.suffix}, and would silently leave the photo out."
        fix = f'Rename it to "{path.stem}{path.suffix.lower()}".'
        yield Finding("image.upper-case", "warning", path, message, fix)
    odd = sorted({unicodedata.name(letter, f"U+{ord(letter):04X}") for letter in path.name if _is_odd(letter)})
    if odd:
        message = f"The file's name holds characters that can't be seen or aren't text: {', '.join(odd[:3])}."
        yield Finding("image.name", "warning", path, message, "Rename it, with letters and digits.")


def _is_odd(letter: str) -> bool:
    # Cc: control, such as a newline. Cf: format, such as a change of direction; emoji are joined by U+200D. Cs: bytes
    # that are no UTF-8. Zl, Zp: ends of lines.
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter != "\u200d"


def _kind_findings(path: Path, measured: Measured) -> Iterator[Finding]:
    if measured.orientation != 1:
        message = f"Turned by its EXIF orientation ({measured.orientation}), not in its pixels."
        fix = "Check that it looks upright in the trainer's samples; saving it upright makes it certain."
        yield Finding("image.orientation", "info", path, message, fix)
    if measured.frames > 1:
        message = f"An animation of {measured.frames} pictures: training takes the first one alone."
        yield Finding("image.animated", "warning", path, message, "Save the picture that you want as JPG or PNG.")
    if measured.mode == "CMYK":
        message = "The colours are CMYK, for printing: converted without their profile, skin turns out off."
        fix = "Convert it to sRGB in a picture editor, and save it as JPG."
        yield Finding("image.cmyk", "warning", path, message, fix)
    if measured.bits == 16:
        message = "16 bits a channel: training sees 8 of them, and which 8 differs from decoder to decoder."
        yield Finding("image.16-bit", "info", path, message, "Save it with 8 bits a channel.")
    if measured.transparent >= 0.005:
        share = round(100 * measured.transparent)
        message = (
            f"{max(1, share)}% of it is transparent: the trainer shows white there, or whatever colours lie hidden."
        )
        yield Finding(
            "image.alpha", "warning", path, message, "Put it on a background, and save it without transparency."
        )
