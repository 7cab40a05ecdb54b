"""`fluxkit stop`: end the run that goes on, after a checkpoint or at once; what Ctrl-C is to a run in a terminal."""

import os
import signal
import time
from pathlib import Path

from fluxkit.commands.assemble import open_project
from fluxkit.commands.attach import holder_or_refuse
from fluxkit.commands.live import Live
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.project.load import Project
from fluxkit.trainer.metrics import read_status
from fluxkit.trainer.occupancy import Holder, end_tree, holder_of, orphan
from fluxkit.trainer.runs import find_run

LOOK_SECONDS = 0.2


def stop(project: Path | None, *, run_id: str | None, now: bool, out: Output) -> None:
    """Stop the run that is being trained, and wait until it has ended.

    Args:
        project: the project's folder.
        run_id: the run; the one that is being trained by default.
        now: don't ask for a checkpoint first.
        out: where to say things.

    Raises:
        UserError: nothing is being trained, or it is on another machine.
    """
    opened = open_project(project)
    left = orphan(opened.root) if holder_of(opened.root) is None else None
    if left and run_id in (None, left.run):
        end_tree(left.trainer)
        out.say(f"The trainer of run {left.run}, which nobody watched any more, has ended.")
        out.emit({"run": left.run, "status": "died"})
        return
    holder = holder_or_refuse(opened, run_id)
    if not holder.here:
        raise UserError(
            f"It is being trained by process {holder.pid} on {holder.host or 'another machine'}.",
            fix="Run `fluxkit stop` there.",
        )
    os.kill(holder.pid, signal.SIGTERM if now else signal.SIGINT)
    try:
        _wait(opened, holder, out)
    except KeyboardInterrupt:
        out.say("It is still stopping. `fluxkit stop --now` stops it at once.")


def _wait(project: Project, holder: Holder, out: Output) -> None:
    live = Live(out)
    run = find_run(project.runs_dir, holder.run) if holder.run else None
    while (still := holder_of(project.root)) is not None and still.pid == holder.pid:
        snapshot = read_status(run) if run else None
        if snapshot:
            live.show(snapshot)
        time.sleep(LOOK_SECONDS)
    live.end()
    if run is None:
        out.say("Stopped before a run had begun.")
        out.emit({"run": None, "status": "interrupted"})
        return
    run = find_run(project.runs_dir, run.record.id)
    saved = max(run.checkpoints(), default=None)
    kept = f"checkpoint-{saved} is kept" if saved else "no checkpoint was written yet"
    out.say(f"Run {run.record.id}: {run.record.status}; {kept}.")
    out.emit({"run": run.record.id, "status": run.record.status, "checkpoint": saved})
