"""`fluxkit fit`: will this training fit this machine, and if not, what would?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fluxkit.commands.assemble import Assembled, open_project
from fluxkit.commands.fitplan import measured_settings
from fluxkit.commands.measuring import MeasuredRun, measure_project
from fluxkit.commands.preflight import assemble_project, check_compiler, fit_of
from fluxkit.commands.validate import check_project
from fluxkit.console import Output
from fluxkit.dataset.report import report_text as dataset_text
from fluxkit.errors import TrainerError, UserError
from fluxkit.fitting.model import Fit
from fluxkit.fitting.report import report_dict, report_text
from fluxkit.fitting.store import keep, settings_key
from fluxkit.hardware import Gpu, gpus, training_card
from fluxkit.project.load import Project
from fluxkit.trainer.occupancy import occupy

STEPS = 3


def fit(project_dir: Path | None, *, measure: bool, option: Sequence[str], out: Output) -> Fit:
    """Say what the project's training takes and whether this machine has it.

    Args:
        project_dir: the project's folder.
        measure: train three real steps first, and keep what they took.
        option: `-o` pairs, as `train` takes them.
        out: where to say things.

    Raises:
        UserError: it does not fit (after the report was printed), or the project is not in order.
        TrainerError: the measured run failed for another reason than memory.
    """
    opened = open_project(project_dir)
    report = check_project(opened, out=out)
    assembled = assemble_project(opened, option)
    if measure:
        if not report.ok:
            out.result(dataset_text(report))
            raise UserError("The dataset has errors.", fix="Correct them as named, then measure again.")
        _measure(opened, assembled, option, out)
    found = fit_of(opened, assembled, report)
    out.result(report_text(found))
    out.emit(report_dict(found))
    if found.shortfalls:
        raise UserError("This training does not fit this machine.", fix="Make one of the changes above.")
    return found


def _measure(project: Project, assembled: Assembled, option: Sequence[str], out: Output) -> None:
    gpu = _gpu()
    check_compiler(project, assembled, out)
    out.say(f"Measuring {STEPS} real steps, a validation image and a checkpoint (a few minutes) …")
    # The largest pictures alone: with several sizes, three steps might never meet them.
    dataset = project.config.dataset.model_copy(update={"resolutions": (max(project.config.dataset.resolutions),)})
    largest = replace(project, config=project.config.model_copy(update={"dataset": dataset}))
    with occupy(project.root):
        run = measure_project(largest, project.cache_dir / "fit", steps=STEPS, option=option, out=out)
    if not run.ok and not run.out_of_memory:
        raise TrainerError(f"The measured run failed: {run.reason}", fix=f"Its log is {run.log}.")
    release = assembled.release.version
    keep(settings_key(measured_settings(assembled), gpu, release), run.measurement, gpu=gpu, release=release, ok=run.ok)
    _say(run, out)


def _gpu() -> Gpu:
    found, card = gpus(), training_card()
    if card >= len(found):
        raise UserError(
            "There is no NVIDIA GPU here to measure on.",
            fix="Run `fluxkit fit` without --measure for what is known, or measure on the machine that will train.",
        )
    return found[card]


def _say(run: MeasuredRun, out: Output) -> None:
    for edge, seconds in run.measurement.seconds_per_step.items():
        out.say(f"  a step at {edge}: {seconds:.2f} s")
    if not run.ok:
        out.warn(f"It ran out of memory ({run.measurement.ended_in.replace('_', ' ')}).")
