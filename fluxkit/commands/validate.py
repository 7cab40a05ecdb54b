"""`fluxkit validate`: would the trainer take this dataset, all of it, and what would it see?"""

from pathlib import Path
from typing import Any

from fluxkit.console import Output
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.model import DatasetReport, DatasetRules
from fluxkit.dataset.preview import Pace, preview_training
from fluxkit.dataset.previewreport import preview_dict, preview_text
from fluxkit.dataset.report import report_dict, report_text
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import Project, find_project, load_project
from fluxkit.trainer.pace import measured_run
from fluxkit.trainer.releases import find_release


def validate(project_dir: Path | None, *, html: Path | None = None, out: Output) -> DatasetReport:
    """Check the project's dataset, simulate what training will see, and print the report.

    Args:
        project_dir: the project's folder.
        html: where to write the report as a page too; it is written with errors as well.
        out: where to say things.

    Raises:
        UserError: the project can't be read, or the dataset has errors (after they were printed).
    """
    project = load_project(find_project(project_dir))
    rules = dataset_rules(project.config)
    report = check_dataset(project.dataset_dir, rules)
    preview = preview_training(report.images, rules, _pace(project, rules, out))
    training = preview_text(preview)
    out.result("\n\n".join([training, report_text(report)] if training else [report_text(report)]))
    out.emit(report_dict(report) | {"training": preview_dict(preview, report.folder)})
    if html is not None:
        from fluxkit.dataset.page import write_page

        size = write_page(html, report, preview, title=project.config.project.name)
        out.say(f"Page: {html} ({size / 1e6:.1f} MB, thumbnails included)")
    errors = len(report.of("error"))
    if errors:
        noun = "error" if errors == 1 else "errors"
        raise UserError(f"The dataset has {errors} {noun}.", fix="Correct them as named, then run `fluxkit validate`.")
    return report


def dataset_rules(config: ProjectConfig) -> DatasetRules:
    """What a project's settings ask of its dataset."""
    options = {name.lstrip("-"): value for name, value in config.train.options.items()}
    accumulation = _count(options.get("gradient_accumulation_steps"))
    return DatasetRules(
        trigger=config.project.trigger,
        resolutions=config.dataset.resolutions,
        captions=config.dataset.captions,
        repeats=config.dataset.repeats,
        batch_size=_count(options.get("train_batch_size")) * accumulation,
        accumulation=accumulation,
        release=_release(config),
        steps=config.train.steps,
    )


def _release(config: ProjectConfig) -> str:
    try:
        return find_release(config.simpletuner.version).version
    except UserError:  # an unknown one is reported when the settings are rendered
        return ""


def _pace(project: Project, rules: DatasetRules, out: Output) -> Pace | None:
    """This machine's pace, from the project's newest real run; None where there is none."""
    try:
        found = measured_run(project.runs_dir)
    except UserError as error:  # a record that can't be read says nothing about the dataset
        out.detail(f"No time estimate: {error.message}")
        return None
    if found is None:
        return None
    run, seconds = found
    record = run.record
    had = record.profile, record.resolutions, record.batch_size, record.release
    now = project.config.train.profile, rules.resolutions, rules.batch_size, rules.release
    return Pace(seconds, record.id, comparable=had == now)


def _count(value: Any) -> int:
    # A wrong type is the option schema's to report, when the settings are rendered.
    return value if isinstance(value, int) and value > 0 else 1
