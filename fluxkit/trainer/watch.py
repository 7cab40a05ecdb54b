"""Where a run stands, put together from the trainer's webhooks, its output, its TensorBoard events and its folder."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import replace

from fluxkit.trainer import events
from fluxkit.trainer.control import saved_steps
from fluxkit.trainer.events import Counter, Event, Saved, Stage
from fluxkit.trainer.metrics import Journal, Snapshot
from fluxkit.trainer.pace import StepClock
from fluxkit.trainer.progress import ProgressReader, Step
from fluxkit.trainer.runs import Run
from fluxkit.trainer.tensorboard import EventFolder

SMOOTHING = 0.98  # of the loss: a step's weight is halved after 34 more
LOOK_SECONDS = 5.0  # between two looks into the run's folder
SHOW_SECONDS = 1.0  # between two status files
_IMAGE = re.compile(r"step_(\d+)_.*\.png")


class Smooth:
    """An exponential moving mean, free of the pull of its start (bias-corrected as in Adam, arXiv:1412.6980)."""

    def __init__(self, smoothing: float = SMOOTHING) -> None:
        self._smoothing = smoothing
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float | None:
        """The mean with `value` in it; what is no finite number is left out. None before the first number."""
        if math.isfinite(value):
            self._sum = self._smoothing * self._sum + (1 - self._smoothing) * value
            self._weight = self._smoothing * self._weight + (1 - self._smoothing)
        return self._sum / self._weight if self._weight else None


class Watch:
    """Takes in what is learnt of a run, keeps the snapshot, and writes it down.

    Webhooks are believed first; a step that only the output or TensorBoard's files told of counts too, so that a
    listener that fell silent changes nothing but the precision.

    Args:
        run: the run.
        journal: where it is written down.
        gpu: what the GPUs hold now, in bytes: used and whole of each.
        events: the run's TensorBoard files, those of this launch alone.
        now: seconds, from a clock that never goes back.
    """

    def __init__(
        self,
        run: Run,
        journal: Journal,
        *,
        gpu: Callable[[], tuple[tuple[int, int], ...]] = tuple,
        events: EventFolder | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._journal = journal
        self._gpu = gpu
        self._events = events
        self._now = now
        self._reader = ProgressReader(lambda name: self.take(Stage(name)), self._output_step)
        self._clock = StepClock(now)
        self._smooth = Smooth()
        self._hooked = -1  # the last step that a webhook told of
        self._looked = self._shown = -math.inf
        self._last = -1  # the last step with a loss
        self._normed = -1  # the last step with a gradient norm
        self.stepping = False
        self.snapshot = Snapshot(steps=run.record.steps, checkpoint=max(run.checkpoints(), default=None))

    def line(self, text: str) -> None:
        """Take in a line of the trainer's output."""
        self._reader.feed(text)

    def hook(self, event: Event) -> None:
        """Take in what a webhook told."""
        if isinstance(event, Step):
            self._hooked = event.step
        self.take(event)

    def take(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Stage():
                self._stage(event)
            case Step():
                self._step(event)
            case Counter(step, total):
                self._change(step=max(step, self.snapshot.step), steps=total or self.snapshot.steps)
            case Saved(step):
                self._saved(step)

    def stopping(self, how: str) -> None:
        """Note that the run is being stopped: after its next `checkpoint`, or `now`."""
        if how != self.snapshot.stopping:
            self._change(stopping=how)
            self._journal.add("stop", how=how)
            self.show()

    def end(self) -> None:
        """Take a last look, when the trainer has ended."""
        self._look_at_events()
        self._change(stage=events.ENDED)
        self._look()
        self.show()

    def tick(self) -> None:
        """Look around, now and then, and write the status."""
        now = self._now()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()
        if now - self._shown >= SHOW_SECONDS:
            self.show()

    def show(self) -> None:
        """Write the status."""
        self._shown = self._now()
        self._change(gpu_bytes=self._gpu(), updated=round(time.time(), 3))
        self._journal.show(self.snapshot)

    def last_step_in_output(self) -> int | None:
        """The last step that the trainer printed."""
        return self._reader.last.step if self._reader.last else None

    def pace(self) -> float | None:
        """Seconds per step, as measured now, or before the run was continued."""
        pace = self._clock.seconds_per_step()
        return self._run.record.seconds_per_step if pace is None else pace

    def _stage(self, stage: Stage) -> None:
        if stage.name != self.snapshot.stage:
            self._looked = -math.inf
            self._journal.add("stage", name=stage.name)
        elif stage.total is None:  # the other channel, which doesn't count
            return
        self._change(stage=stage.name, done=stage.done, total=stage.total)

    def _output_step(self, step: Step) -> None:
        # The webhook comes before the line that tells the same; one that is more than a step late has fallen silent.
        if step.step > self._hooked + 1 or self._hooked < 0:
            self._step(step)

    def _step(self, step: Step, *, ago: float = 0.0) -> None:
        if step.step <= self._last:
            return
        self._last = step.step
        self.stepping = True
        if self.snapshot.stage != events.TRAINING:
            self._looked = -math.inf
        self._clock.step(step, ago=ago)
        pace = self._clock.recent() or step.seconds_per_step
        loss = step.loss
        smoothed = self._smooth.add(loss) if loss is not None else self.snapshot.smoothed
        self._change(
            stage=events.TRAINING,
            done=None,
            total=None,
            step=step.step,
            steps=step.total,
            loss=loss,
            smoothed=smoothed,
            learning_rate=step.learning_rate,
            seconds_per_step=pace,
            seconds_left=None if pace is None else (step.total - step.step) * pace,
        )
        self._gradient(step.step, step.gradient_norm)
        self._journal.add(
            "step",
            step=step.step,
            loss=loss,
            smoothed=smoothed,
            learning_rate=step.learning_rate,
            gradient_norm=step.gradient_norm,
            seconds_per_step=pace,
            gpu_bytes=[used for used, _ in self._gpu()],
            **({} if loss is None or math.isfinite(loss) else {"finite": False}),
        )

    def _saved(self, step: int) -> None:
        if self.snapshot.checkpoint != step:
            self._change(checkpoint=step)
            self._journal.add("checkpoint", step=step)

    def _look(self) -> None:
        """What the folder tells: steps in TensorBoard's files, complete checkpoints, validation images."""
        self._look_at_events()
        saved = max(saved_steps(self._run), default=None)
        if saved is not None and saved > (self.snapshot.checkpoint or 0):
            self._saved(saved)
        if self.snapshot.stage != events.VALIDATING:  # then they are all there
            self._look_at_images()

    def _look_at_events(self) -> None:
        for seen in self._events.news() if self._events else ():
            if seen.loss is not None:
                step = Step(seen.step, self.snapshot.steps, seen.loss, seen.learning_rate, None, seen.gradient_norm)
                self._step(step, ago=max(0.0, time.time() - seen.time))
            self._gradient(seen.step, seen.gradient_norm)

    def _gradient(self, step: int, norm: float | None) -> None:
        if norm is not None and step >= self._normed:
            self._normed = step
            self._change(gradient_norm=norm)

    def _look_at_images(self) -> None:
        by_step: dict[int, list[str]] = {}
        try:
            for path in (self._run.output_dir / "validation_images").iterdir():
                found = _IMAGE.fullmatch(path.name)
                if found:
                    by_step.setdefault(int(found[1]), []).append(path.name)
        except OSError:
            return
        newest = max(by_step, default=None)
        images = tuple(sorted(by_step.get(newest, ()))) if newest is not None else ()
        if images and images != self.snapshot.images:
            self._change(validation=newest, images=images)
            self._journal.add("validation", step=newest, images=list(images))

    def _change(self, **values: object) -> None:
        self.snapshot = replace(self.snapshot, **values)  # type: ignore[arg-type]
