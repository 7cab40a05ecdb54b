"""What checking a dataset is about: its rules, its pictures, and what was found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluxkit.dataset.faces import Face

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the dataset that its owner should know.

    Args:
        code: stable name for programs, e.g. `image.too-small`; docs/checks.md has a section on each.
        severity: an `error` keeps training from starting.
        path: the file or folder it is about.
        message: what is wrong, in a sentence.
        fix: what to do about it.
        related: other files that it is about, e.g. the duplicates of `path`.
    """

    code: str
    severity: Severity
    path: Path
    message: str
    fix: str = ""
    related: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A picture that decodes completely.

    Args:
        path: the file.
        width: in pixels, as viewers show it (EXIF orientation applied).
        height: in pixels, likewise.
        format: Pillow's name of what the bytes are, e.g. `JPEG`.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        digest: hexadecimal SHA-256 of the file.
        mode: Pillow's mode, e.g. `RGB`, `CMYK`, `I;16`.
        jpeg_quality: libjpeg's 1 to 100; None for other formats.
        sharpness: 0 (blurred) to 1, of the sharpest parts.
        phash: 64 bits of perceptual hash, in hexadecimal.
        faces: in pixels of the upright picture, the largest first; None when no detector looked.
    """

    path: Path
    width: int
    height: int
    format: str
    orientation: int = 1
    digest: str = ""
    mode: str = "RGB"
    jpeg_quality: int | None = None
    sharpness: float | None = None
    phash: str = ""
    faces: tuple[Face, ...] | None = None


@dataclass(frozen=True)
class DatasetRules:
    """What the project asks of its dataset.

    Args:
        trigger: the word that every caption begins with.
        resolutions: edges in pixels of the square crops.
        release: the pinned SimpleTuner release; empty where none is known, then the newest release's rules hold.
        steps: optimizer steps of the run.
        accumulation: batches an optimizer step adds up; a part of `batch_size`.
        captions: `textfile` or `trigger`.
        repeats: how often an epoch shows each picture again.
        batch_size: images an optimizer step: batch × accumulation × GPUs.
        subject: the everyday word for what is shown; faces and traits are looked for where it is a person.
        centre_crop: training cuts the square in the middle out of each picture.
    """

    trigger: str
    resolutions: tuple[int, ...] = (1024, 512)
    release: str = ""
    steps: int = 0
    accumulation: int = 1
    captions: Literal["textfile", "trigger"] = "textfile"
    repeats: int = 1000
    batch_size: int = 1
    subject: str = "person"
    centre_crop: bool = True


@dataclass(frozen=True)
class DatasetReport:
    """Everything found, and the pictures that decode.

    Args:
        folder: what was checked.
        findings: in the order: folder and trigger, pictures, captions, buckets.
        images: every readable picture, by path.
    """

    folder: Path
    findings: tuple[Finding, ...]
    images: tuple[ImageFacts, ...]

    @property
    def ok(self) -> bool:
        """Whether training may start."""
        return not self.of("error")

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]
