"""Blur, exposure, compression, borders and text: what the LoRA would learn along with the person."""

from collections.abc import Iterator
from pathlib import Path

from fluxkit.dataset.checks.measure import Measured
from fluxkit.dataset.model import DatasetRules, Finding

# Sharp photographs have 0.6 and more; a Gaussian blur of 4 pixels in a square of 1024 takes them to 0.25-0.6. Set so
# that no sharp sample photograph is found, and every one blurred by 8 pixels is (tests/dataset/checks/test_pixels.py).
SHARP_ENOUGH = 0.40
# Means of skin in daylight lie between 80 and 220.
DARKEST, BRIGHTEST = 40, 232
CLIPPED = 0.4
LOW_QUALITY, FAIR_QUALITY = 70, 80
# Sample photographs saved with JPEG quality 40 and less have 1.2 to 3, others up to 1.13.
BLOCKY = 1.25
TEXT = 0.005
NARROWEST_BORDER = 0.01


def quality_findings(path: Path, measured: Measured, rules: DatasetRules) -> Iterator[Finding]:
    """What spoils a readable picture."""
    if measured.sharpness < SHARP_ENOUGH:
        message = "Blurred: not even its sharpest parts are sharp."
        yield Finding("image.blurred", "warning", path, message, "Leave it out: the LoRA would learn the blur.")
    yield from _exposure(path, measured)
    yield from _compression(path, measured, rules)
    if measured.text >= TEXT:
        message = "There seems to be text on it: a date, a caption or a watermark."
        fix = "If so, crop it away or leave the picture out: FLUX learns writing fast. Else let it be."
        yield Finding("image.text", "warning", path, message, fix)
    yield from _border(path, measured)


def _exposure(path: Path, measured: Measured) -> Iterator[Finding]:
    where = "The face" if measured.faces else "The middle of the picture"
    if measured.brightness < DARKEST or measured.black > CLIPPED:
        message = f"{where} is too dark (mean level {measured.brightness:.0f} of 255)."
        yield Finding("image.dark", "warning", path, message, "Brighten it if there is detail, or leave it out.")
    elif measured.brightness > BRIGHTEST or measured.white > CLIPPED:
        message = f"{where} is too bright (mean level {measured.brightness:.0f} of 255): detail is burnt out."
        yield Finding("image.bright", "warning", path, message, "Use a darker version, or leave it out.")


def _compression(path: Path, measured: Measured, rules: DatasetRules) -> Iterator[Finding]:
    # Scaled down to a third, eight pixels of artifact become less than three.
    shrunk = min(measured.width, measured.height) >= 3 * max(rules.resolutions)
    quality = measured.quality
    if 0 < quality < FAIR_QUALITY:
        low = quality < LOW_QUALITY and not shrunk
        message = f"Compressed strongly (JPEG quality about {quality}): FLUX learns such artifacts before the face."
        fix = "Use the original from the camera or phone; messengers and web sites compress again."
        yield Finding("image.jpeg-quality", "warning" if low else "info", path, message, fix)
    if measured.blocks >= BLOCKY and not 0 < quality < FAIR_QUALITY and not shrunk:
        message = "Blocks of 8 × 8 pixels are visible: it was compressed strongly once, then saved again."
        yield Finding("image.blocks", "warning", path, message, "Use the original from the camera or phone.")


def _border(path: Path, measured: Measured) -> Iterator[Finding]:
    left, top, right, bottom = measured.border
    if min(left, right) >= NARROWEST_BORDER or min(top, bottom) >= NARROWEST_BORDER:
        share = round(100 * max(left + right, top + bottom))
        message = f"It has a border of one colour, {share}% of an edge: the LoRA would learn to draw it."
        yield Finding("image.border", "warning", path, message, "Crop the border away.")
