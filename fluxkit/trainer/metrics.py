"""What a run leaves to be looked at: `metrics.jsonl` (each step, appended) and `status.json` (now, replaced)."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import write_json
from fluxkit.trainer.progress import clock, parse_step
from fluxkit.trainer.runs import Run
from fluxkit.trainer.tensorboard import logged

METRICS_FILE = "metrics.jsonl"
STATUS_FILE = "status.json"


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands.

    Args:
        stage: what the trainer does, for people.
        done: how much of the stage's `total`, where it is counted.
        total: see `done`.
        step: optimizer steps done.
        steps: optimizer steps asked for.
        loss: of the last step.
        smoothed: exponential moving mean of the loss, of the last 50 steps or so.
        learning_rate: of the last step.
        gradient_norm: of the last step of which it is known.
        seconds_per_step: the median of the last steps, without validation images and checkpoints.
        seconds_left: to the last step at that pace; validation images and checkpoints come on top.
        gpu_bytes: used and whole memory of each GPU that the trainer sees, in bytes, everybody's use.
        checkpoint: the step of the newest complete checkpoint.
        validation: the step of the newest validation images.
        images: their file names in the run's `output/validation_images`.
        stopping: empty; `checkpoint` when it stops after the next one; `now`.
        updated: seconds since 1970.
    """

    stage: str = "Starting the trainer"
    done: int | None = None
    total: int | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    smoothed: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    seconds_per_step: float | None = None
    seconds_left: float | None = None
    gpu_bytes: tuple[tuple[int, int], ...] = ()
    checkpoint: int | None = None
    validation: int | None = None
    images: tuple[str, ...] = ()
    stopping: str = ""
    updated: float = 0.0

    def describe(self) -> str:
        """The steps, in one line for people."""
        parts = [f"step {self.step:,}/{self.steps:,}"]
        # A loss that is no number any more is what matters; the mean would hide it.
        shown = self.smoothed if self.loss is None or math.isfinite(self.loss) else self.loss
        if shown is not None:
            parts.append(f"loss {shown:.4f}")
        if self.learning_rate is not None:
            parts.append(f"lr {self.learning_rate:.2e}")
        if self.gradient_norm is not None:
            parts.append(f"grad {self.gradient_norm:.3g}")
        if self.seconds_per_step is not None:
            parts.append(f"{self.seconds_per_step:.2f} s/step")
        if self.seconds_left is not None:
            parts.append(f"{clock(self.seconds_left)} left")
        parts += [f"GPU {used / 2**30:.1f}/{whole / 2**30:.1f} GiB" for used, whole in self.gpu_bytes]
        if self.checkpoint is not None:
            parts.append(f"checkpoint {self.checkpoint:,}")
        return " · ".join(parts)

    def describe_stage(self) -> str:
        """The stage, in one line for people."""
        return f"{self.stage} {self.done:,}/{self.total:,}" if self.done is not None and self.total else self.stage


class Journal:
    """Writes a run's metrics and status; a full disk ends the writing, never the run.

    Args:
        run: the run.
    """

    def __init__(self, run: Run) -> None:
        self._metrics = run.folder / METRICS_FILE
        self._status = run.folder / STATUS_FILE
        self.broken = ""

    def add(self, event: str, **values: Any) -> None:
        """Append one event, with the time."""
        line = {"time": round(time.time(), 3), "event": event, **{k: _plain(v) for k, v in values.items()}}
        try:
            with self._metrics.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            self.broken = str(error)

    def show(self, snapshot: Snapshot) -> None:
        """Replace the status."""
        try:
            write_json(self._status, {name: _plain(value) for name, value in asdict(snapshot).items()})
        except UserError as error:
            self.broken = error.message


def read_status(run: Run) -> Snapshot | None:
    """Where a run stands or stood; None where nothing readable was left."""
    try:
        data = json.loads((run.folder / STATUS_FILE).read_text(encoding="utf-8"))
        known = {field.name for field in fields(Snapshot)}
        values = {name: value for name, value in data.items() if name in known}
        values["gpu_bytes"] = tuple((int(used), int(whole)) for used, whole in values.get("gpu_bytes", ()))
        values["images"] = tuple(values.get("images", ()))
        snapshot = Snapshot(**values)
        snapshot.describe()
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return snapshot


def read_metrics(run: Run) -> Iterator[dict[str, Any]]:
    """The events of a run, oldest first; a line that was cut short is left out."""
    try:
        text = (run.folder / METRICS_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


@dataclass(frozen=True)
class Curves:
    """What is known of each step, ascending.

    Args:
        loss: step → loss, not smoothed.
        learning_rate: step → learning rate.
        gradient_norm: step → norm of the gradients before clipping.
    """

    loss: Mapping[int, float]
    learning_rate: Mapping[int, float]
    gradient_norm: Mapping[int, float]


def curves(run: Run) -> Curves:
    """A run's curves: as recorded, else as TensorBoard's files have it; losses that neither has, as the log has them.

    Runs of an older fluxkit, and those whose webhooks told no loss or were the user's own, have gaps in the record.
    """
    found: dict[str, dict[int, float]] = {field.name: {} for field in fields(Curves)}
    for step, scalars in logged(run).items():
        for name, curve in found.items():
            value = getattr(scalars, name)
            if value is not None:
                curve[step] = value
    for event in read_metrics(run):
        number = event.get("step")
        if event.get("event") == "step" and isinstance(number, int):
            for name, curve in found.items():
                value = event.get(name)
                if isinstance(value, int | float):
                    curve[number] = float(value)
    found["loss"] = found["loss"] or _losses_in_log(run.log_file)
    return Curves(**{name: dict(sorted(curve.items())) for name, curve in found.items()})


def _losses_in_log(log: Path) -> dict[int, float]:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    steps = map(parse_step, text.replace("\r", "\n").split("\n"))
    return {step.step: step.loss for step in steps if step and step.step and step.loss is not None}


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
