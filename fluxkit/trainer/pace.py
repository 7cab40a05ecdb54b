"""How fast this machine trains: measured while a run goes on, looked up when the next one is planned."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from fluxkit.trainer.progress import Step, parse_step
from fluxkit.trainer.runs import Run, list_runs

LEAST_STEPS = 3  # fewer intervals than this are the trainer warming up
RECENT_STEPS = 50


class StepClock:
    """Times the steps of a run as they are reported.

    The median of the intervals is the pace: the first steps warm up and compile, and a few steps wait for validation
    images or a checkpoint.

    Args:
        now: seconds, from a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: tuple[int, float] | None = None
        self._intervals: list[float] = []

    def step(self, step: Step, *, ago: float = 0.0) -> None:
        """Note a new step, which was done `ago` seconds before it is told of."""
        here = step.step, self._now() - ago
        if self._last and here[0] > self._last[0]:
            self._intervals.append((here[1] - self._last[1]) / (here[0] - self._last[0]))
        self._last = here

    def recent(self) -> float | None:
        """The median of the last intervals: the pace now; None before enough steps were seen."""
        last = self._intervals[-RECENT_STEPS:]
        return statistics.median(last) if len(last) >= LEAST_STEPS else None

    def seconds_per_step(self) -> float | None:
        """The pace so far; None before enough steps were seen."""
        if len(self._intervals) < LEAST_STEPS:
            return None
        return round(statistics.median(self._intervals), 4)


def measured_run(runs_dir: Path) -> tuple[Run, float] | None:
    """The newest real run whose pace is known, and its seconds per step; rehearsals tell nothing about FLUX.

    Raises:
        UserError: a run's record can't be read.
    """
    for run in reversed(list_runs(runs_dir)):
        if not run.record.rehearsal:
            pace = run.record.seconds_per_step or pace_in_log(run.log_file)
            if pace:
                return run, pace
    return None


def pace_in_log(log: Path) -> float | None:
    """The pace in a trainer's log: for runs whose record doesn't hold it (an older fluxkit, a power cut).

    The trainer's progress bar shows a running mean; the median of its values leaves out what validation images add.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found: dict[int, float] = {}
    for line in text.replace("\r", "\n").split("\n"):
        step = parse_step(line)
        if step and step.step and step.seconds_per_step:
            found[step.step] = step.seconds_per_step
    return round(statistics.median(found.values()), 4) if len(found) > LEAST_STEPS else None
