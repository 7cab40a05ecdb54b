"""One trainer a project at a time: who holds the project, and whether a run that says it runs really does.

The holder keeps a lock on a file in the project's folder; the kernel frees it however the holder ends. So a run that is
recorded as running while nobody holds the lock has died, be it by kill -9 or a power cut.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from fluxkit.errors import UserError
from fluxkit.files import write_json
from fluxkit.trainer.runs import Run

LOCK_FILE = ".fluxkit-train.lock"
HOLDER_FILE = ".fluxkit-train.json"
WAIT_SECONDS = 1.0  # a glance at the lock by `fluxkit runs` holds it for a moment
GLANCE_SECONDS = 0.02
SAME_START_SECONDS = 5.0  # the clock may be set while a program runs
END_SECONDS = 10.0  # between TERM and KILL
DIED = "died"


@dataclass(frozen=True)
class Holder:
    """The fluxkit that trains in a project now.

    Args:
        run: the run's id; empty while it is being prepared.
        pid: its process id.
        started: when that process started, in seconds since 1970.
        host: the machine.
        trainer: the process id of the trainer; 0 before it was launched.
        trainer_started: when the trainer started, likewise.
    """

    run: str = ""
    pid: int = 0
    started: float = 0.0
    host: str = ""
    trainer: int = 0
    trainer_started: float = 0.0

    @property
    def here(self) -> bool:
        """Whether it is on this machine and can be sent signals."""
        return self.host == socket.gethostname() and _started(self.pid) is not None and self._is(self.pid, self.started)

    @property
    def elsewhere(self) -> bool:
        """Whether it is on another machine, of which nothing else is known."""
        return bool(self.host) and self.host != socket.gethostname()

    @property
    def trainer_lives(self) -> bool:
        """Whether its trainer runs, whatever became of itself."""
        return self.host == socket.gethostname() and bool(self.trainer) and self._is(self.trainer, self.trainer_started)

    @staticmethod
    def _is(pid: int, started: float) -> bool:
        found = _started(pid)
        return found is not None and abs(found - started) < SAME_START_SECONDS


class Occupancy:
    """The project, held by this process."""

    def __init__(self, root: Path) -> None:
        self._file = root / HOLDER_FILE
        self._holder = Holder(pid=os.getpid(), started=_started(os.getpid()) or 0.0, host=socket.gethostname())
        self._write(self._holder)

    def name(self, run_id: str) -> None:
        """Say which run it is."""
        self._write(Holder(**{**asdict(self._holder), "run": run_id}))

    def launched(self, trainer: int) -> None:
        """Say which process the trainer is."""
        self._write(Holder(**{**asdict(self._holder), "trainer": trainer, "trainer_started": _started(trainer) or 0.0}))

    def _write(self, holder: Holder) -> None:
        self._holder = holder
        write_json(self._file, asdict(holder))


@contextlib.contextmanager
def occupy(root: Path) -> Iterator[Occupancy]:
    """Hold the project while training in it.

    Raises:
        UserError: another one trains in it, or the trainer of one that died still runs.
    """
    lock = FileLock(root / LOCK_FILE)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        holder = _read(root)
        which = f"Run {holder.run}" if holder.run else "Another `fluxkit train`"
        raise UserError(
            f"{which} is training in this project (process {holder.pid} on {holder.host or 'this machine'}).",
            fix="`fluxkit attach` shows it, `fluxkit stop` ends it; one trainer a project at a time.",
        ) from None
    try:
        left = orphan(root)
        if left:
            raise UserError(
                f"The trainer of run {left.run} still runs (process {left.trainer}), though the fluxkit that watched "
                "it is gone.",
                fix="`fluxkit stop` ends it.",
            )
        try:
            yield Occupancy(root)
        finally:
            (root / HOLDER_FILE).unlink(missing_ok=True)
    finally:
        lock.release()


def holder_of(root: Path) -> Holder | None:
    """Who trains in the project now; None when nobody does."""
    if not (root / LOCK_FILE).exists():
        return None
    lock = FileLock(root / LOCK_FILE)
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            holder = _read(root)
            # Nobody named, or somebody who is gone: then it is another's glance at the lock, or a start that has yet
            # to write its name.
            if holder.here or holder.elsewhere or time.monotonic() > until:
                return holder
            time.sleep(GLANCE_SECONDS)
        else:
            lock.release()
            return None


def orphan(root: Path) -> Holder | None:
    """The last holder, if it is gone and its trainer is not."""
    holder = _read(root)
    return holder if holder.trainer_lives and holder.pid != os.getpid() else None


def end_tree(pid: int) -> None:
    """End a program that somebody else started, and all that it started: TERM, then KILL."""
    import psutil

    try:
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.Error:
        return
    for send in ("terminate", "kill"):
        for process in tree:
            with contextlib.suppress(psutil.Error):
                getattr(process, send)()
        _, tree = psutil.wait_procs(tree, END_SECONDS)


def status_of(run: Run, holder: Holder | None) -> str:
    """What became of a run: its recorded status, `died` where it says that it runs and nobody runs it."""
    if run.record.status in ("running", "prepared") and (holder is None or holder.run != run.record.id):
        return DIED
    return run.record.status


def _read(root: Path) -> Holder:
    try:
        return Holder(**json.loads((root / HOLDER_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Holder()


def _started(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, ValueError):
        return None
