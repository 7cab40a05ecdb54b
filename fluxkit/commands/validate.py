"""`fluxkit validate`: would the trainer take this dataset, all of it?"""

from pathlib import Path
from typing import Any

from fluxkit.console import Output
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.model import DatasetReport, DatasetRules
from fluxkit.dataset.report import report_dict, report_text
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import find_project, load_project


def validate(project_dir: Path | None, *, out: Output) -> DatasetReport:
    """Check the project's dataset and print the report.

    Raises:
        UserError: the project can't be read, or the dataset has errors (after they were printed).
    """
    project = load_project(find_project(project_dir))
    report = check_dataset(project.dataset_dir, dataset_rules(project.config))
    out.result(report_text(report))
    out.emit(report_dict(report))
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
        captions=config.dataset.captions,
        repeats=config.dataset.repeats,
        batch_size=_count(options.get("train_batch_size")) * _count(options.get("gradient_accumulation_steps")),
    )


def _count(value: Any) -> int:
    # A wrong type is the option schema's to report, when the settings are rendered.
    return value if isinstance(value, int) and value > 0 else 1
