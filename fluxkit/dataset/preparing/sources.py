"""The originals: which files there are, and what each picture holds (measured by the dataset's checks, and cached)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.checks.cache import MeasureCache
from fluxkit.dataset.checks.engine import measure_all
from fluxkit.dataset.checks.measure import Measured
from fluxkit.dataset.faces import Face, FaceDetector
from fluxkit.dataset.model import Finding
from fluxkit.dataset.preparing.manifest import Stamp, stamp
from fluxkit.dataset.preparing.names import shown
from fluxkit.dataset.preparing.pixels import NotAPicture, decode, read_picture, reads_heic, to_srgb, turned
from fluxkit.dataset.scan import scan, without_suffix

# Pictures that the trainer may not read, and Pillow may; films, sound and raw files are none.
_CONVERTIBLE = (".heic", ".heif", ".avif", ".jxl", ".jfif", ".jp2", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".tga")
_HEIC = (".heic", ".heif")
_HEIC_FIX = "it is an iPhone photo (HEIC), which needs the extra: pip install 'fluxkit[heic]'"
_WORK_EDGE = 384


@dataclass(frozen=True)
class Sources:
    """The files of the originals' folder; a name is the relative path as text.

    Args:
        pictures: name → file, sorted.
        captions: name of the picture → its caption.
        others: media that are no pictures, by name.
        findings: about the folder itself.
    """

    pictures: Mapping[str, Path]
    captions: Mapping[str, Path]
    others: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Seen:
    """A picture that decodes to its last byte; sizes and boxes are those of the upright picture, in pixels."""

    original: Stamp
    width: int
    height: int
    phash: str
    thumb: bytes
    sharpness: float
    faces: tuple[Face, ...] | None


def list_sources(folder: Path) -> Sources:
    """List a folder's pictures and captions, its subfolders included."""
    reads_heic()
    scanned = scan(folder)
    media = [finding.path for finding in scanned.findings if finding.code == "image.format"]
    pictures = sorted((*scanned.images, *(path for path in media if path.suffix.lower() in _CONVERTIBLE)))
    # `photo.TXT` counts as well; where there are both, the trainer's own `photo.txt`.
    by_stem = {without_suffix(caption): caption for caption in sorted(scanned.captions)}
    found = {path: by_stem[without_suffix(path)] for path in pictures if without_suffix(path) in by_stem}
    return Sources(
        pictures={source_name(path, folder): path for path in pictures},
        captions={source_name(path, folder): caption for path, caption in found.items() if caption.is_file()},
        others=tuple(source_name(path, folder) for path in sorted(set(media) - set(pictures))),
        findings=tuple(finding for finding in scanned.findings if finding.code != "image.format"),
    )


def source_name(path: Path, folder: Path) -> str:
    """How the manifest names an original."""
    return shown(path.relative_to(folder).as_posix())


def look_at_all(
    pictures: Mapping[str, Path], detector: FaceDetector | None, cache: MeasureCache | None
) -> Iterator[tuple[str, Seen | str]]:
    """Look at every picture, on all cores.

    Yields:
        The name, and what was seen or why the picture can't be used.
    """
    measured = measure_all(pictures.values(), detector=detector, cache=cache)
    for (name, path), file in zip(pictures.items(), measured, strict=True):
        yield name, _seen(path, file.digest, file.measured, detector)


def _seen(path: Path, digest: str, measured: Measured, detector: FaceDetector | None) -> Seen | str:
    try:
        if measured.problem == "other-format":
            return _seen_by_pillow(path, detector)
        if measured.problem:
            return _HEIC_FIX if path.suffix.lower() in _HEIC and not reads_heic() else _reason(measured)
        original = stamp(path, digest)
    except NotAPicture as error:
        return str(error)
    except OSError as error:
        return f"the file can't be read ({error.strerror})"
    size = measured.width, measured.height
    return Seen(original, *size, measured.phash, measured.thumb, measured.sharpness, measured.faces)


def _seen_by_pillow(path: Path, detector: FaceDetector | None) -> Seen:
    """A format that the checks don't measure: the trainer would not read it, the copy turns it into a PNG."""
    import numpy as np
    from PIL import Image

    from fluxkit.dataset.checks import embed, hashes, pixels

    original = stamp(path)
    image, _ = to_srgb(turned(decode(read_picture(path))))
    scale = min(1.0, _WORK_EDGE / min(image.size))
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX
    )
    gray = small.convert("L")
    return Seen(
        original,
        image.width,
        image.height,
        hashes.perceptual_hash(gray),
        embed.thumb(small),
        pixels.sharpness(np.asarray(gray)),
        tuple(detector.detect(image)) if detector else None,
    )


def _reason(measured: Measured) -> str:
    if measured.problem == "empty":
        return "the file is empty (0 bytes)"
    if measured.problem == "too-large":
        return f"it is too large to decode safely ({measured.detail})"
    return f"it is damaged, incomplete or no picture ({measured.detail})"
