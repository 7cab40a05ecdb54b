"""What training will see, for people and for programs."""

from pathlib import Path
from typing import Any

from fluxkit.dataset.preview import Picture, TrainingPreview


def preview_text(preview: TrainingPreview) -> str:
    """The preview in lines; empty where no photo is usable."""
    if not preview.steps_per_epoch:
        return ""
    return "\n".join(["What training will see:", *(f"  {line}" for line in preview_lines(preview))])


def preview_lines(preview: TrainingPreview) -> list[str]:
    """One fact a line: crops by resolution, epochs, how often a photo is seen, caches, time."""
    rules = preview.rules
    release = f"SimpleTuner {rules.release}" if rules.release else "SimpleTuner"
    lines = [
        f"{bucket.resolution}: {_plural(bucket.images, 'photo')} in bucket 1.0, a centred square scaled to "
        f"{bucket.edge}×{bucket.edge} ({release})"
        for bucket in preview.buckets
    ]
    step = _plural(rules.batch_size, "photo") + (f" on {rules.processes} GPUs" if rules.processes > 1 else "")
    lines.append(
        f"{rules.steps:,} steps of {step} are {_number(preview.epochs)} epochs of "
        f"{preview.steps_per_epoch:,} steps; each photo is shown about {preview.views:,.0f} times"
    )
    lines.append(
        f"Caches: up to {byte_size(preview.vae_bytes)} for photos, {byte_size(preview.text_bytes)} for "
        f"{_plural(preview.captions, 'caption')}"
    )
    lines.append(time_line(preview))
    return lines


def time_line(preview: TrainingPreview) -> str:
    """How long the steps take, or why that is not known."""
    pace, seconds = preview.pace, preview.seconds
    if pace is None or seconds is None:
        return "Time: not known yet; the first real `fluxkit train` on this machine measures it"
    where = f"measured in run {pace.run}" + ("" if pace.comparable else ", which had other settings")
    about = f"about {duration(seconds)} at {pace.seconds_per_step:.2f} s a step ({where})"
    return f"Time: {about}; validation images and checkpoints come on top"


def duration(seconds: float) -> str:
    """`3 h 20 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{round(seconds)} s"


def preview_dict(preview: TrainingPreview, folder: Path) -> dict[str, Any]:
    """The preview as JSON data (docs/validate-training-json.md); sizes and boxes in pixels."""
    rules, pace = preview.rules, preview.pace
    return {
        "release": rules.release or None,
        "steps": rules.steps,
        "batch_size": rules.batch_size,
        "gpus": rules.processes,
        "repeats": rules.repeats,
        "steps_per_epoch": preview.steps_per_epoch,
        "epochs": round(preview.epochs, 3),
        "views_per_image": round(preview.views, 1),
        "resolutions": [
            {
                "resolution": bucket.resolution,
                "final_edge": bucket.edge,
                "images": bucket.images,
                "samples_per_epoch": bucket.samples,
            }
            for bucket in preview.buckets
        ],
        "captions": preview.captions,
        "cache_bytes": {"vae": preview.vae_bytes, "text": preview.text_bytes},
        "time": None
        if pace is None
        else {
            "seconds": round(preview.seconds or 0),
            "seconds_per_step": pace.seconds_per_step,
            "measured_in_run": pace.run,
            "comparable": pace.comparable,
        },
        "images": [_picture_dict(picture, folder) for picture in preview.pictures],
    }


def shown_path(path: Path, folder: Path) -> str:
    """A path for people and JSON: relative to the dataset's folder, and always valid text."""
    shown = str(path.relative_to(folder)) if path != folder and path.is_relative_to(folder) else str(path)
    # A file name may hold bytes that are no UTF-8 (surrogates in Python), which no page or JSON file takes.
    return shown.encode("utf-8", "replace").decode("utf-8")


def _picture_dict(picture: Picture, folder: Path) -> dict[str, Any]:
    return {
        "path": shown_path(picture.path, folder),
        "sideways": picture.sideways,
        "left_out": list(picture.left_out),
        "crops": [
            {
                "resolution": crop.resolution,
                "bucket": crop.bucket,
                "box": list(crop.box),
                "final_size": list(crop.final),
                "scale": round(crop.scale, 4),
            }
            for crop in picture.crops
        ],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def byte_size(count: int) -> str:
    """`1.2 GB`, `3.4 MB` or `5 kB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
