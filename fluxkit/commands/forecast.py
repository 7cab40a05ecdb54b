"""What `validate` says about the run to come: the dataset's preview, with this machine's pace, and the page."""

from pathlib import Path

from fluxkit.console import Output
from fluxkit.dataset.model import DatasetReport, DatasetRules
from fluxkit.dataset.preview import Pace, TrainingPreview, preview_training
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import Project
from fluxkit.trainer.pace import measured_run
from fluxkit.trainer.releases import find_release


def forecast(project: Project, report: DatasetReport, rules: DatasetRules, out: Output) -> TrainingPreview:
    """What training will see of a checked dataset."""
    return preview_training(report.images, rules, _pace(project, rules, out))


def write_report_page(
    path: Path, project: Project, report: DatasetReport, preview: TrainingPreview, out: Output
) -> None:
    """Write the report as a page and say where it is and how large.

    Raises:
        UserError: it can't be written.
    """
    from fluxkit.dataset.page import write_page

    size = write_page(path, report, preview, title=project.config.project.name)
    out.say(f"Page: {path} ({size / 1e6:.1f} MB, thumbnails included)")


def pinned_release(config: ProjectConfig) -> str:
    """The pinned release's version; empty when it is none, which is reported when the settings are rendered."""
    try:
        return find_release(config.simpletuner.version).version
    except UserError:
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
    had = record.profile, record.resolutions, record.batch_size, record.processes, record.release
    now = project.config.train.profile, rules.resolutions, rules.batch_size, rules.processes, rules.release
    return Pace(seconds, record.id, comparable=had == now)
