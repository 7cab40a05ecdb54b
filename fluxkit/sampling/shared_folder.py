"""Files in a folder that other machines write into too, over a network disk as a rule."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fluxkit.files import cannot_write
from fluxkit.sampling.work import Task

_NFS_SECONDS = 60.0  # a network folder shows another machine's new file after its attribute cache's time


def clear(tasks: Sequence[Task]) -> None:
    """Remove what lies where images are to go: damaged ones, or the ledger would have them. What appears is new."""
    for task in tasks:
        try:
            task.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(task.path, error) from error


def await_file(path: Path) -> None:
    """Wait for an image that another machine has written; the ledger says so if it never comes."""
    deadline = time.monotonic() + _NFS_SECONDS
    while not is_there(path) and time.monotonic() < deadline:
        time.sleep(0.5)


def is_there(path: Path) -> bool:
    """Whether a file is there; listing its folder renews what a network folder's cache knows of it."""
    if not path.is_file():
        with suppress(OSError):
            os.listdir(path.parent)  # noqa: PTH208 - for its effect
    return path.is_file()
