"""Ctrl-C, and other signals to this process, at a chosen moment."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxkit.trainer.metrics import read_metrics
from fluxkit.trainer.runs import list_runs

Moment = str | Callable[[], bool]


@contextmanager
def interrupting(project: Path, *moments: Moment, number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Send this process the signal at each moment, one after the other.

    A moment is a file of that pattern in the project, or a condition. What the trainer has done is no sign that the
    supervisor knows of it: where that matters, the moment is `noted`.
    """
    stop = threading.Event()

    def reached(moment: Moment) -> bool:
        return moment() if callable(moment) else bool(list(project.glob(moment)))

    def watch() -> None:
        for moment in moments:
            while not reached(moment):
                if stop.wait(0.05):
                    return
            stop.wait(0.3)
            os.kill(os.getpid(), number)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def noted(project: Path, kind: str, **values: object) -> Callable[[], bool]:
    """Whether the supervisor of a run in the project has written down such an event."""

    def condition() -> bool:
        told = (event for run in list_runs(project / "runs") for event in read_metrics(run))
        return any(event["event"] == kind and values.items() <= event.items() for event in told)

    return condition
