"""`fluxkit doctor`: this machine and this project, and what to do about what is wrong."""

from dataclasses import asdict
from pathlib import Path

from fluxkit.commands.assemble import pin_of
from fluxkit.commands.bundle import bundle
from fluxkit.console import Output
from fluxkit.doctor.checks import findings
from fluxkit.doctor.gather import gather
from fluxkit.doctor.model import Finding
from fluxkit.doctor.report import report_text, summary
from fluxkit.errors import UserError
from fluxkit.project.load import CONFIG_FILE, Project, find_project, load_project
from fluxkit.trainer.pin import Pin


def doctor(project_dir: Path | None, *, offline: bool, bundle_file: Path | None = None, out: Output) -> list[Finding]:
    """Print the report; works outside a project too, then on the machine alone.

    Args:
        project_dir: the project's folder, or one below it.
        offline: ask the Hub nothing.
        bundle_file: where to write a report to send, or a folder for it; None writes none.
        out: where to say things.

    Raises:
        UserError: there are problems (after they were printed), or the folder named is no project.
    """
    project, pin, error = _open(project_dir)
    with out.bar():
        facts = gather(project, pin, error, offline=offline)
    found = findings(facts)
    out.result(report_text(found))
    problems = [finding for finding in found if finding.level == "problem"]
    report = {"ok": not problems, "summary": summary(found), "findings": [asdict(finding) for finding in found]}
    if bundle_file:
        report["bundle"] = bundle(bundle_file, _root(project_dir), project, report, out)
    out.emit(report)
    if problems and not bundle_file:
        count = "is 1 problem" if len(problems) == 1 else f"are {len(problems)} problems"
        raise UserError(f"There {count}.", fix="Do what is named below each ✗, then run `fluxkit doctor` again.")
    return found


def _root(folder: Path | None) -> Path | None:
    try:
        return find_project(folder)
    except UserError:
        return None


def _open(folder: Path | None) -> tuple[Project | None, Pin | None, UserError | None]:
    """The project and its pin, or why they can't be read; no project at all is fine unless one was named."""
    try:
        root = find_project(folder)
    except UserError:
        if folder is not None:
            raise
        return None, None, None
    try:
        project = load_project(root)
        pin = pin_of(project)
        _ = pin.release
    except UserError as error:
        message = error.message if CONFIG_FILE in error.message else f"{root / CONFIG_FILE}: {error.message}"
        return None, None, UserError(message, fix=error.fix)
    return project, pin, None
