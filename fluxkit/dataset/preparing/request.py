"""What `prepare` is asked for and what it reports, and the folders that it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.checks.cache import MeasureCache
from fluxkit.dataset.faces import FaceDetector
from fluxkit.dataset.model import Finding
from fluxkit.dataset.preparing.manifest import JOURNAL_FILE, MANIFEST_FILE, Manifest, Recipe
from fluxkit.errors import UserError


@dataclass(frozen=True)
class PrepareRequest:
    """What to make from what.

    Args:
        source: the originals' folder; only read.
        target: `prepared/`.
        source_name: how the manifest names the originals' folder.
        recipe: how.
        detector: finds faces; needed for `crop = "face"`.
        cache: of the dataset's checks; None looks at every picture anew.
        workers: pictures converted at once; None takes one a core.
    """

    source: Path
    target: Path
    source_name: str
    recipe: Recipe
    detector: FaceDetector | None = None
    cache: MeasureCache | None = None
    workers: int | None = None


@dataclass(frozen=True)
class PrepareReport:
    """What was done.

    Args:
        folder: the pictures of the copy.
        manifest: what `manifest.json` says now.
        made: pictures that were written.
        removed: pictures whose originals are gone or left out now.
        edited: files that were edited in the copy and stay as they are.
        conflicts: those of them whose original changed too.
        aside: files that were moved out of the way, and where to.
        findings: about the originals' folder, and captions that are no text.
    """

    folder: Path
    manifest: Manifest
    made: tuple[str, ...]
    removed: tuple[str, ...]
    edited: tuple[str, ...]
    conflicts: tuple[str, ...]
    aside: Mapping[Path, Path]
    findings: tuple[Finding, ...]


def check_folders(source: Path, target: Path) -> None:
    """Refuse a copy inside the originals' folder, originals inside the copy, and a folder that is somebody else's."""
    real_source, real_target = source.resolve(), target.resolve()
    if real_target.is_relative_to(real_source):
        raise UserError(
            f"The copy would lie in the originals' own folder, {source}.",
            fix="Move the photos into a folder of their own, such as dataset/, and name it in [dataset] path.",
        )
    if real_source.is_relative_to(real_target):
        raise UserError(
            f"[dataset] path names {source}, which is inside the prepared copy.",
            fix="Name the folder with the originals in [dataset] path.",
        )
    ours = (MANIFEST_FILE, JOURNAL_FILE)
    if target.is_dir():
        there = {path.name for path in target.iterdir()} - {".lock"}
        foreign = bool(there) and not there & set(ours)
    else:
        foreign = target.exists() or target.is_symlink()
    if foreign:
        raise UserError(f"{target} is in the way: fluxkit did not make it.", fix="Rename it or move it away.")
