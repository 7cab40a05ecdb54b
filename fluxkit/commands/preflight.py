"""Before a launch: is it known that this training can't fit or run on this machine? Then it isn't started."""

from collections.abc import Sequence
from dataclasses import replace

from fluxkit.commands.assemble import Assembled, assemble, ready_environment, schema_of
from fluxkit.commands.fitplan import assemble_plain, machine, measured_settings, training_plan
from fluxkit.console import Output
from fluxkit.dataset.model import DatasetReport
from fluxkit.errors import UserError
from fluxkit.fitting.judge import judge
from fluxkit.fitting.model import Fit
from fluxkit.fitting.report import shortfall_text
from fluxkit.fitting.store import settings_key, stored
from fluxkit.project.load import Project
from fluxkit.rendering.profiles import load_profile
from fluxkit.trainer.compiler import PACKAGES, compiles, missing_for_compiling
from fluxkit.trainer.runs import unfinished


def check_fit(
    project: Project, assembled: Assembled, report: DatasetReport, out: Output, *, fresh: bool, gpus: int = 1
) -> None:
    """Refuse a training that is known not to fit; what is only feared is said, and the training goes on.

    Args:
        project: the project.
        assembled: as it will be trained.
        report: its checked dataset.
        out: where to say things.
        fresh: whether a new run begins even when one is unfinished.
        gpus: how many are used; the smallest of them decides.

    Raises:
        UserError: GPU memory, RAM or disk are known to be too small; with the three cheapest changes that would fit.
    """
    existing = None if fresh else unfinished(project.runs_dir)
    written = len(existing.checkpoints()) if existing else 0
    fit = fit_of(project, assembled, report, written=written, gpus=gpus)
    for note in fit.notes:
        out.detail(note)
    if fit.shortfalls:
        lines = "\n".join(line for shortfall in fit.shortfalls for line in shortfall_text(shortfall))
        raise UserError(
            f"This training does not fit this machine:\n{lines}",
            fix="Make one of the changes, then run `fluxkit train` again; `--no-fit-check` starts it all the same.",
        )


def check_compiler(project: Project, assembled: Assembled, out: Output) -> None:
    """Refuse a training that compiles where nothing can: it would end after minutes, at its first step.

    Where it can, that is said: the first steps look as if the trainer hung.

    Raises:
        UserError: a C compiler or Python's headers are missing.
    """
    options = {name: setting.value for name, setting in assembled.rendered.settings.items()}
    if not compiles(options):
        return
    if missing := missing_for_compiling(ready_environment(project).python):
        instead = load_profile(assembled.request.profile).before
        raise UserError(
            f"The profile {assembled.request.profile} compiles the model's blocks, and {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not on this machine.",
            fix=f"{PACKAGES}, or set a [train] profile that compiles nothing"
            + (f' ("{instead}").' if instead else "."),
        )
    out.say("The model's blocks are compiled: the first step of each picture size takes a minute or more.")


def assemble_project(project: Project, option: Sequence[str]) -> Assembled:
    """The project as it would be trained, in a folder that no run uses."""
    folder = project.cache_dir / "fit"
    return assemble(
        project, config_dir=folder / "config", output_dir=folder / "output", cli_options=option, rehearsal=None
    )


def fit_of(project: Project, assembled: Assembled, report: DatasetReport, *, written: int = 0, gpus: int = 1) -> Fit:
    """Whether an assembled project fits this machine, as far as it is known.

    Args:
        project: the project.
        assembled: as it will be trained.
        report: its checked dataset.
        written: checkpoints of the run that are on the disk already.
        gpus: how many are used.
    """
    plan = training_plan(project, assembled, assemble_plain(project), schema_of(project), report)
    plan = replace(plan, checkpoints=max(1, plan.checkpoints - written))
    here = machine(project, gpus)
    release = assembled.release.version
    known = stored(settings_key(measured_settings(assembled), here.gpu, release)) if here.gpu else None
    return judge(plan, here, known)
