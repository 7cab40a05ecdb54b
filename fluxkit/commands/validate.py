"""`fluxkit validate`: would the trainer take this dataset, is it good to learn from, and what would training see?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import open_project
from fluxkit.commands.forecast import forecast, pinned_release, write_report_page
from fluxkit.commands.training_data import training_data
from fluxkit.console import Output
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.checks.tokens import find_tokenizers
from fluxkit.dataset.faces import find_face_detector
from fluxkit.dataset.model import DatasetReport, DatasetRules
from fluxkit.dataset.previewreport import preview_dict, preview_text
from fluxkit.dataset.report import report_dict, report_text
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import Project
from fluxkit.rendering.profiles import load_profile

# What a clean copy no longer has.
_PREPARE_MENDS = {
    "image.mislabelled", "image.format", "image.upper-case", "image.same-stem", "image.name-twin", "image.name",
    "image.orientation", "image.sideways", "image.animated", "image.cmyk", "image.16-bit", "image.alpha",
    "image.duplicate", "image.near-duplicate", "caption.bom", "caption.blank-line",
}  # fmt: skip


def validate(project_dir: Path | None, *, html: Path | None = None, gpus: int = 1, out: Output) -> DatasetReport:
    """Check the project's dataset, foresee what training will see of it, and print the report.

    Args:
        project_dir: the project's folder.
        html: where to write the report as a page too; it is written with errors as well.
        gpus: how many are to train together, on all machines.
        out: where to say things.

    Raises:
        UserError: the project can't be read, or the dataset has errors (after they were printed).
    """
    project = open_project(project_dir)
    report = check_project(project, processes=gpus, out=out)
    preview = forecast(project, report, dataset_rules(project.config, gpus), out)
    out.result("\n\n".join(filter(None, (preview_text(preview), report_text(report)))))
    _say_helpers(report, project, out)
    out.emit(report_dict(report) | {"training": preview_dict(preview, report.folder)})
    if html is not None:
        write_report_page(html, project, report, preview, out)
    errors = len(report.of("error"))
    if errors:
        noun = "error" if errors == 1 else "errors"
        raise UserError(f"The dataset has {errors} {noun}.", fix="Correct them as named, then run `fluxkit validate`.")
    return report


def check_project(project: Project, *, processes: int = 1, out: Output) -> DatasetReport:
    """Every check of a project's dataset; what was measured before comes from the project's `cache/`.

    Args:
        project: the project.
        processes: GPUs that are to train together, on all machines.
        out: where to say things.

    Raises:
        UserError: `[dataset] face_model` can't be used.
    """
    folder = training_data(project, out)
    config = project.config
    model = config.dataset.face_model
    base = project.root / Path(config.model.base).expanduser()
    with out.progress("Looking at the photos") as progress:
        return check_dataset(
            folder,
            dataset_rules(config, processes),
            faces=find_face_detector(project.root / Path(model).expanduser() if model else None),
            tokenizers=find_tokenizers(str(base) if base.is_dir() else config.model.base, config.model.revision),
            cache=project.cache_dir / "validate.sqlite",
            progress=progress,
        )


def _say_helpers(report: DatasetReport, project: Project, out: Output) -> None:
    """Name the commands that do what the report asks for."""
    codes = [finding.code for finding in report.findings]
    mended = sum(code in _PREPARE_MENDS for code in codes)
    if mended and report.folder == project.dataset_dir:
        out.say(f"`fluxkit prepare` mends {mended} of these findings in a copy, and leaves your photos as they are.")
    missing = sum(code in ("caption.missing", "caption.empty") for code in codes)
    if missing:
        out.say(f"`fluxkit caption` describes the photos that have no caption ({missing}).")
    if "caption.trait" in codes:
        out.say("`fluxkit caption --review` opens each caption in your editor.")


def dataset_rules(config: ProjectConfig, processes: int = 1) -> DatasetRules:
    """What a project's settings ask of its dataset, with so many GPUs that train together."""
    own = {name.lstrip("-"): value for name, value in config.train.options.items()}
    options = {**_profile_options(config.train.profile, pinned_release(config)), **own}
    accumulation = _count(options.get("gradient_accumulation_steps"))
    cuts = options.get("crop", True) and options.get("crop_aspect", "square") == "square"
    return DatasetRules(
        trigger=config.project.trigger,
        resolutions=config.dataset.resolutions,
        release=pinned_release(config),
        steps=config.train.steps,
        accumulation=accumulation,
        captions=config.dataset.captions,
        repeats=config.dataset.repeats,
        batch_size=_count(options.get("train_batch_size")) * accumulation * processes,
        subject=config.project.subject,
        centre_crop=bool(cuts) and options.get("crop_style", "center") in ("center", "centre"),
        processes=processes,
    )


def _profile_options(name: str, release: str) -> Mapping[str, Any]:
    try:
        return load_profile(name, release).options
    except UserError:  # said when the settings are rendered
        return {}


def _count(value: Any) -> int:
    # A wrong type is the option schema's to report, when the settings are rendered.
    return value if isinstance(value, int) and value > 0 else 1
