"""A launched run from its first line to its proven result: watched, recorded, stopped in order."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from fluxkit.commands.brake import Brake
from fluxkit.commands.live import Live
from fluxkit.console import Output
from fluxkit.errors import FluxkitError, InterruptedByUser, TrainerError
from fluxkit.trainer import launch, runs
from fluxkit.trainer.causes import DISK_FULL
from fluxkit.trainer.control import can_be_asked, saved_steps, signal_file
from fluxkit.trainer.failures import Before, explain
from fluxkit.trainer.gpumeter import meter_for
from fluxkit.trainer.listener import Listener
from fluxkit.trainer.metrics import Journal
from fluxkit.trainer.occupancy import Occupancy
from fluxkit.trainer.outputs import StoppedShort, check_result
from fluxkit.trainer.tensorboard import EventFolder
from fluxkit.trainer.watch import Watch


def supervise(
    run: runs.Run,
    plan: launch.RunPlan,
    modules: int | None,
    out: Output,
    *,
    listener: Listener | None = None,
    occupancy: Occupancy | None = None,
) -> runs.Run:
    """Launch the trainer, show what it does, and decide what became of the run.

    Args:
        run: the run, its config rendered and its folder prepared.
        plan: the launch.
        modules: adapted modules that the result must have; None where they can't be predicted.
        out: where to say things.
        listener: where the trainer's webhooks arrive; None where it has none: its output has to do.
        occupancy: the project's, which is told the trainer's process.

    Returns:
        The finished run, its record on disk.

    Raises:
        TrainerError: the trainer failed, or its result is not what was asked for.
        InterruptedByUser: Ctrl-C or `fluxkit stop`; checkpoints are kept and the next `train` continues.
    """
    run = run.update(status="running", message="")
    supervisor = _Supervisor(run, plan, out, listener)
    before = Before(run.log_file)
    returncode: int | None = None
    try:
        returncode = supervisor.launch(occupancy)
        facts = check_result(run, returncode=returncode, expected_modules=modules, seen_step=supervisor.last_step)
    except (InterruptedByUser, KeyboardInterrupt) as stop:
        run = run.update(status="interrupted", seconds_per_step=supervisor.watch.pace())
        supervisor.end(run)
        saved = max(run.checkpoints(), default=None)
        kept = f"checkpoint-{saved} is kept" if saved else "no checkpoint was written yet"
        if supervisor.cannot_ask:
            kept += f" (SimpleTuner {run.record.release} can't be asked for one more)"
        again = "`fluxkit train --rehearse` starts anew" if run.record.rehearsal else "`fluxkit train` continues"
        raise InterruptedByUser(f"Stopped; {kept}.", fix=f"{again}.") from stop
    except StoppedShort as error:
        why = explain(before, problem=error.message, returncode=returncode)
        supervisor.end(run.update(status="failed", message=why.message.splitlines()[0]))
        raise why.error() from error
    except OSError as error:
        # The log can't be written: a full disk, as a rule, and then neither can the record.
        full = TrainerError(f"{run.log_file} can't be written: {error.strerror or error}.", fix=DISK_FULL.fix)
        with contextlib.suppress(FluxkitError):
            supervisor.end(run.update(status="failed", message=full.message))
        raise full from error
    except FluxkitError as error:
        supervisor.end(run.update(status="failed", message=error.message))
        raise
    run = run.update(status="finished", modules=facts.modules, seconds_per_step=supervisor.watch.pace())
    supervisor.end(run)
    out.say(f"Trained: {run.record.steps} steps, {facts.modules} modules")
    out.result(str(run.final_weights))
    out.emit({"run": run.record.id, "adapter": str(run.final_weights), "modules": facts.modules})
    return run


class _Supervisor:
    """One launch: what comes in is taken in, shown and written down; a wish to stop is carried out."""

    def __init__(self, run: runs.Run, plan: launch.RunPlan, out: Output, listener: Listener | None) -> None:
        self._run = run
        self._plan = plan
        self._out = out
        self._listener = listener
        self._journal = Journal(run)
        self._meter = meter_for(plan.env)
        self._signals = signal_file(run.folder)
        self._live = Live(out)
        self._brake = Brake(self._can_wait)
        self._asked_at: int | None = None
        self._trouble = ""
        self.cannot_ask = False
        self.watch = Watch(run, self._journal, gpu=self._meter.read, events=EventFolder.from_now(run))

    @property
    def last_step(self) -> int | None:
        """The last step that the trainer told of."""
        return self.watch.snapshot.step if self.watch.stepping else self.watch.last_step_in_output()

    def launch(self, occupancy: Occupancy | None) -> int:
        """Run the trainer to its end; return its exit code."""
        self._signals.reset()
        self._journal.add("start", run=self._run.record.id, release=self._run.record.release)
        self.watch.show()
        with self._meter.running(), self._brake.armed():
            try:
                return launch.launch(
                    self._plan,
                    log=self._run.log_file,
                    on_line=self._line,
                    on_tick=self._tick,
                    on_start=occupancy.launched if occupancy else None,
                )
            finally:
                self._news()

    def end(self, run: runs.Run) -> None:
        """Write down what became of the run."""
        with self._harmless():
            self.watch.end()
        self._live.end()
        self._journal.add("end", status=run.record.status, message=run.record.message)
        trouble = self._trouble or self._journal.broken
        if trouble:
            self._out.warn(f"Not all that happened could be shown or recorded: {trouble}")

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Whatever goes wrong with watching is noted, and the training goes on."""
        try:
            yield
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"

    def _line(self, text: str) -> None:
        self._news()
        with self._harmless():
            self.watch.line(text)
            self._live.show(self.watch.snapshot)

    def _news(self) -> None:
        with self._harmless():
            for event in self._listener.drain() if self._listener else ():
                self.watch.hook(event)
                self._live.show(self.watch.snapshot)

    def _tick(self) -> bool:
        """Look around; whether the trainer is to be stopped."""
        self._news()
        with self._harmless():
            self.watch.tick()
            self._live.show(self.watch.snapshot)
        if not self._brake.wanted:
            return False
        try:
            return self._saved()
        except FluxkitError:  # it can't be asked: then it is stopped
            return True

    def _can_wait(self) -> bool:
        """Whether there are steps to save, and the release can be asked to save them. Runs in a signal handler."""
        self.cannot_ask = self.watch.stepping and not can_be_asked(self._run.record.release)
        return self.watch.stepping and not self.cannot_ask

    def _saved(self) -> bool:
        """Ask for a checkpoint, once; whether one is there that holds every step up to the wish to stop."""
        step = self.watch.snapshot.step
        newest = max((self.watch.snapshot.checkpoint or 0, *saved_steps(self._run)))
        if self._asked_at is None:
            self._asked_at = step
            if newest < step:
                self.watch.stopping("checkpoint")
                self._live.show(self.watch.snapshot)
                self._signals.ask_for_checkpoint()
        return newest >= self._asked_at
