"""Ctrl-C, and other signals to this process, at a chosen moment."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def interrupting(project: Path, *moments: str, number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Send this process the signal whenever a file of that pattern has appeared in the project, one after the other."""
    stop = threading.Event()

    def watch() -> None:
        for moment in moments:
            while not list(project.glob(moment)):
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
