"""A launched run from its first line to its proven result: watched, recorded, stopped in order."""

import sys
import time

from fluxkit.console import Output
from fluxkit.errors import FluxkitError, InterruptedByUser
from fluxkit.trainer import launch, runs
from fluxkit.trainer.outputs import check_result
from fluxkit.trainer.pace import StepClock
from fluxkit.trainer.progress import ProgressReader, Step


def supervise(run: runs.Run, plan: launch.RunPlan, modules: int | None, out: Output) -> runs.Run:
    """Launch the trainer, show what it does, and decide what became of the run.

    Args:
        run: the run, its config rendered and its folder prepared.
        plan: the launch.
        modules: adapted modules that the result must have; None where they can't be predicted.
        out: where to say things.

    Returns:
        The finished run, its record on disk.

    Raises:
        TrainerError: the trainer failed, or its result is not what was asked for.
        InterruptedByUser: Ctrl-C; checkpoints are kept and the next `train` continues.
    """
    run = run.update(status="running", message="")
    printer = _Printer(out)
    reader = ProgressReader(printer.stage, printer.step)
    try:
        returncode = launch.launch(plan, log=run.log_file, on_line=reader.feed)
        printer.end()
        facts = check_result(
            run,
            returncode=returncode,
            expected_modules=modules,
            seen_step=reader.last.step if reader.last else None,
        )
    except InterruptedByUser as stop:
        printer.end()
        run.update(status="interrupted", seconds_per_step=printer.pace(run))
        saved = max(run.checkpoints(), default=None)
        kept = f"checkpoint-{saved} is kept" if saved else "no checkpoint was written yet"
        again = "`fluxkit train --rehearse` starts anew" if run.record.rehearsal else "`fluxkit train` continues"
        raise InterruptedByUser(f"Stopped; {kept}.", fix=f"{again}.") from stop
    except FluxkitError as error:
        printer.end()
        run.update(status="failed", message=error.message)
        raise
    run = run.update(status="finished", modules=facts.modules, seconds_per_step=printer.pace(run))
    out.say(f"Trained: {run.record.steps} steps, {facts.modules} modules")
    out.result(str(run.final_weights))
    out.emit({"run": run.record.id, "adapter": str(run.final_weights), "modules": facts.modules})
    return run


class _Printer:
    """Stages as lines; steps as one line that rewrites itself on a terminal, and now and then elsewhere."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._clock = StepClock()
        self._live = sys.stdout.isatty() and not out.as_json and out.verbosity >= 0
        self._open = False
        self._last = 0.0

    def stage(self, name: str) -> None:
        self.end()
        self._out.say(f"  {name} …", style="dim")

    def step(self, step: Step) -> None:
        self._clock.step(step)
        if self._live:
            sys.stdout.write(f"\r\x1b[2K  {step.describe()}")
            sys.stdout.flush()
            self._open = True
            return
        now = time.monotonic()
        if now - self._last >= 30 or step.step in (1, step.total):
            self._last = now
            self._out.say(f"  {step.describe()}")

    def pace(self, run: runs.Run) -> float | None:
        """Seconds per step, as measured now, or before the run was continued."""
        pace = self._clock.seconds_per_step()
        return run.record.seconds_per_step if pace is None else pace

    def end(self) -> None:
        if self._open:
            sys.stdout.write("\n")
            self._open = False
