"""`fluxkit validate`: would the trainer take this dataset, all of it, and what would it see?"""

from pathlib import Path
from typing import Any

from fluxkit.commands.forecast import forecast, pinned_release, write_report_page
from fluxkit.console import Output
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.model import DatasetReport, DatasetRules
from fluxkit.dataset.previewreport import preview_dict, preview_text
from fluxkit.dataset.report import report_dict, report_text
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import find_project, load_project


def validate(project_dir: Path | None, *, html: Path | None = None, out: Output) -> DatasetReport:
    """Check the project's dataset, foresee what training will see of it, and print the report.

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
    preview = forecast(project, report, rules, out)
    out.result("\n\n".join(filter(None, (preview_text(preview), report_text(report)))))
    out.emit(report_dict(report) | {"training": preview_dict(preview, report.folder)})
    if html is not None:
        write_report_page(html, project, report, preview, out)
    errors = len(report.of("error"))
    if errors:
        noun = "error" if errors == 1 else "errors"
        raise UserError(f"The dataset has {errors} {noun}.", fix="Correct them as named, then run `fluxkit validate`.")
    return report


def dataset_rules(config: ProjectConfig) -> DatasetRules:
    """What a project's settings ask of its dataset."""
    options = {name.lstrip("-"): value for name, value in config.train.options.items()}
    return DatasetRules(
        trigger=config.project.trigger,
        resolutions=config.dataset.resolutions,
        release=pinned_release(config),
        steps=config.train.steps,
        accumulation=_count(options.get("gradient_accumulation_steps")),
        captions=config.dataset.captions,
        repeats=config.dataset.repeats,
        batch_size=_count(options.get("train_batch_size")) * _count(options.get("gradient_accumulation_steps")),
    )


def _count(value: Any) -> int:
    # A wrong type is the option schema's to report, when the settings are rendered.
    return value if isinstance(value, int) and value > 0 else 1
