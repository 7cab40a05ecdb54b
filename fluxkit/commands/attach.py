"""`fluxkit attach`: look at the run that goes on, from any terminal; Ctrl-C ends the looking, not the run."""

import time
from pathlib import Path

from fluxkit.commands.assemble import open_project
from fluxkit.commands.live import Live
from fluxkit.console import Output
from fluxkit.errors import InterruptedByUser, TrainerError, UserError
from fluxkit.project.load import Project
from fluxkit.trainer.metrics import read_status
from fluxkit.trainer.occupancy import DIED, Holder, holder_of, status_of
from fluxkit.trainer.runs import Run, find_run

LOOK_SECONDS = 0.5


def attach(project: Path | None, *, run_id: str | None, out: Output) -> Run | None:
    """Show the run that is being trained until it ends.

    Args:
        project: the project's folder.
        run_id: the run; the one that is being trained by default.
        out: where to say things.

    Returns:
        The finished run; None when the user stopped looking.

    Raises:
        UserError: nothing is being trained, or another run is.
        TrainerError: the run failed or died.
        InterruptedByUser: somebody stopped the run.
    """
    opened = open_project(project)
    run = _running(opened, run_id)
    live = Live(out)
    try:
        out.say(f"Run {run.record.id}; Ctrl-C ends the looking, not the run")
        while (holder := holder_of(opened.root)) is not None and holder.run == run.record.id:
            snapshot = read_status(run)
            if snapshot:
                live.show(snapshot)
            time.sleep(LOOK_SECONDS)
        live.end()
    except KeyboardInterrupt:
        live.end()
        out.say(f"Run {run.record.id} goes on. `fluxkit attach` looks again, `fluxkit stop` ends it.")
        return None
    return _ended(find_run(opened.runs_dir, run.record.id), out)


def holder_or_refuse(project: Project, run_id: str | None) -> Holder:
    """Who trains in the project.

    Raises:
        UserError: nobody does, or it is another run than the one asked for.
    """
    holder = holder_of(project.root)
    if holder is None:
        if run_id:
            run = find_run(project.runs_dir, run_id)
            raise UserError(
                f"Run {run_id} is not being trained: it {status_of(run, None)}.",
                fix=f"`fluxkit runs show {run_id}` tells what became of it.",
            )
        raise UserError("Nothing is being trained in this project.", fix="`fluxkit runs` lists what was.")
    if run_id and holder.run and holder.run != run_id:
        raise UserError(f"It is run {holder.run} that is being trained, not {run_id}.", fix="Name that one, or none.")
    return holder


def _running(project: Project, run_id: str | None) -> Run:
    while not (holder := holder_or_refuse(project, run_id)).run:
        time.sleep(LOOK_SECONDS)  # it is being prepared
    return find_run(project.runs_dir, holder.run)


def _ended(run: Run, out: Output) -> Run:
    status = status_of(run, None)
    out.emit({"run": run.record.id, "status": status, "message": run.record.message})
    if status == "finished":
        out.say(f"Trained: {run.record.steps} steps, {run.record.modules} modules")
        out.result(str(run.final_weights))
        return run
    if status == "interrupted":
        raise InterruptedByUser(f"Run {run.record.id} was stopped.", fix="`fluxkit train` continues.")
    what = "died: the fluxkit that ran it is gone" if status == DIED else "failed"
    raise TrainerError(
        f"Run {run.record.id} {what}. {run.record.message}".strip(),
        fix=f"`fluxkit runs show {run.record.id}` tells more; `fluxkit train` continues from its last checkpoint.",
    )
