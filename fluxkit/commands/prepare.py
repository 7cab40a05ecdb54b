"""`fluxkit prepare`: a clean copy of the photos, which training then uses."""

from collections import Counter
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import open_project
from fluxkit.commands.training_data import source_name
from fluxkit.console import Output, printable
from fluxkit.dataset.checks.cache import MeasureCache
from fluxkit.dataset.faces import FaceDetector, find_face_detector
from fluxkit.dataset.preparing.manifest import Crop, Duplicates, Recipe, load_before
from fluxkit.dataset.preparing.prepare import prepare as make_copy
from fluxkit.dataset.preparing.request import PrepareReport, PrepareRequest
from fluxkit.errors import InterruptedByUser, UserError
from fluxkit.project.load import Project

_DONE = {
    "turned": "turned upright, as their EXIF says",
    "gps": "where they were taken (GPS) removed",
    "metadata": "other metadata removed (camera, dates, thumbnails)",
    "srgb": "colours converted to sRGB",
    "cmyk": "converted from print colours (CMYK)",
    "grayscale": "grey made RGB",
    "palette": "palette made RGB",
    "8-bit": "16 bits a colour made 8",
    "alpha": "transparency put on white",
    "first-picture": "first picture of an animation taken",
    "crop": "cropped to a square around the face",
    "jpeg": "kept as the camera compressed them (JPEG), only without metadata",
}
_NOTES = {
    "animation": "is an animation; its first picture was taken",
    "adobe-rgb": "says Adobe RGB, but brings no colour profile: its colours may look dull",
    "profile-broken": "has a damaged colour profile; it was taken for sRGB",
    "no-face": "no face was found in it; it was not cropped",
}

_SHOWN = 4


def prepare(project: Path | None, *, crop: Crop | None, duplicates: Duplicates | None, out: Output) -> PrepareReport:
    """Make the clean copy in `prepared/`, or bring it up to date.

    Args:
        project: the project's folder.
        crop: `face` for squares around faces, `none`; None does as the last time.
        duplicates: `leave-out` or `keep`; None does as the last time.
        out: where to say things.

    Raises:
        UserError: the copy can't be made; or it was made, and some photos could not be read.
    """
    opened = open_project(project)
    recipe, detector = _recipe(opened, crop, duplicates, out)
    cache = MeasureCache(opened.cache_dir / "validate.sqlite", detector.name if detector else None)
    request = PrepareRequest(
        source=opened.dataset_dir,
        target=opened.prepared_dir,
        source_name=source_name(opened),
        recipe=recipe,
        detector=detector,
        cache=cache,
    )
    try:
        with out.progress("Preparing the photos") as progress:
            report = make_copy(request, progress)
    except KeyboardInterrupt as stop:
        raise InterruptedByUser(
            "Stopped; the copy is not complete, what was finished is kept.", fix="`fluxkit prepare` goes on there."
        ) from stop
    finally:
        cache.close()
    out.emit(_document(report))
    _say(report, out)
    unusable = [left for left in report.manifest.left_out if left.code == "unreadable"]
    errors = len(unusable) + sum(finding.severity == "error" for finding in report.findings)
    if errors:
        raise UserError(
            f"The copy is made, but {_count(errors, 'file')} could not be used.",
            fix="Replace or delete what is named above, then run `fluxkit prepare` again; or go on without.",
        )
    return report


def _recipe(
    project: Project, crop: Crop | None, duplicates: Duplicates | None, out: Output
) -> tuple[Recipe, FaceDetector | None]:
    """What to do: as asked for, else as the last time; and the detector, where faces decide."""
    last = load_before(project.prepared_dir).recipe or Recipe()
    repeated = [
        f"--{name} {value}"
        for name, given, value in (("crop", crop, last.crop), ("duplicates", duplicates, last.duplicates))
        if given is None and value != getattr(Recipe(), name)
    ]
    if repeated:
        out.say(f"As the last time: {' '.join(repeated)}")
    recipe = Recipe(crop=crop or last.crop, duplicates=duplicates or last.duplicates)
    if recipe.crop != "face":
        return recipe, None
    model = project.config.dataset.face_model
    detector = find_face_detector(project.root / Path(model).expanduser() if model else None)
    if detector is None:
        raise UserError(
            "--crop face needs a face detector, which is not installed.",
            fix="Install the extra: pip install 'fluxkit[faces]'; or run `fluxkit prepare --crop none`.",
        )
    return recipe.model_copy(update={"face_model": detector.name}), detector


def _say(report: PrepareReport, out: Output) -> None:
    manifest = report.manifest
    total = len(manifest.photos) + len(manifest.left_out)
    counts = Counter(step for photo in manifest.photos for step in photo.done)
    counts["jpeg"] = sum(photo.file.endswith(".jpg") for photo in manifest.photos)
    if report.made:
        for code, text in _DONE.items():
            if counts[code]:
                out.say(f"  {counts[code]:>4} {text}")
    for photo in manifest.photos:
        for note in photo.notes:
            out.warn(f"{printable(photo.source)} {_NOTES[note]}.")
    for left in manifest.left_out:
        (out.warn if left.code == "unreadable" else out.say)(
            f"Left out: {printable(left.source)}: {printable(left.why)}."
        )
    for finding in report.findings:
        out.warn(f"{printable(str(finding.path))}: {finding.message}" + (f" → {finding.fix}" if finding.fix else ""))
    _say_kept(report, out)
    made = f"{len(report.made)} new, {len(manifest.photos) - len(report.made)} unchanged"
    removed = f", {len(report.removed)} stale files removed" if report.removed else ""
    out.say(f"{len(manifest.photos)} of {_count(total, 'photo')} are in the copy ({made}{removed})")
    out.result(str(report.folder))


def _say_kept(report: PrepareReport, out: Output) -> None:
    """Nothing that somebody edited is lost, and nothing of it happens silently."""
    for file in report.conflicts:
        out.warn(
            f"{printable(file)} was edited in the copy, and its original (or --crop) changed too: your edit is kept. "
            f"Delete {printable(str(report.folder / file))} and run `fluxkit prepare` to have the original's."
        )
    kept = [printable(file) for file in report.edited if file not in report.conflicts]
    if kept:
        more = f" and {len(kept) - _SHOWN} more" if len(kept) > _SHOWN else ""
        out.say(f"Kept as they were edited in the copy: {', '.join(kept[:_SHOWN])}{more}")
    for before, after in report.aside.items():
        out.warn(f"{printable(str(before))} was not made by fluxkit, or was edited: moved to {printable(str(after))}")


def _document(report: PrepareReport) -> dict[str, Any]:
    return {
        "folder": str(report.folder),
        "photos": [
            {"file": photo.file, "source": photo.source, "done": list(photo.done), "notes": list(photo.notes)}
            for photo in report.manifest.photos
        ],
        "left_out": [
            left.model_dump(include={"source", "code", "why", "instead"}) for left in report.manifest.left_out
        ],
        "written": list(report.made),
        "removed": list(report.removed),
        "edited": list(report.edited),
        "conflicts": list(report.conflicts),
        "set_aside": {str(before): str(after) for before, after in report.aside.items()},
        "findings": [
            {"code": finding.code, "severity": finding.severity, "path": str(finding.path)}
            | {"message": finding.message, "fix": finding.fix}
            for finding in report.findings
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
