"""The same jobs over many GPUs: a Ray actor for each, tasks leased to them, images through the shared folder.

Ray places the actors and tells when one dies; whose turn it is and who is to blame is `leases.py`'s, how long one may
be silent `deadlines.py`'s: one that hangs is killed, and then dead like any other. Workers write images whole or not at
all, so an image that is there when its worker dies counts as made.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxkit.errors import FluxkitError, UserError
from fluxkit.extras import require
from fluxkit.sampling.deadlines import Deadlines
from fluxkit.sampling.leases import DEATHS, LeaseBook
from fluxkit.sampling.ray_cluster import Cluster, import_ray, ray_cluster
from fluxkit.sampling.shared_folder import await_file, clear, is_there
from fluxkit.sampling.sight import Landmarks, check_sight, landmarks
from fluxkit.sampling.work import Failed, Made, Task, Work
from fluxkit.sampling.worker import Worker

_AUTO_BATCH = 4  # what a worker is taken to make at once where it decides for itself
_PATIENCE = 300.0  # seconds without any worker: other people's jobs may hold the GPUs for a while


class RayWorker:
    """One actor: a `Worker` that says who it is, and that it has loaded."""

    def __init__(self, work: Work, worker_type: type[Worker]) -> None:
        self._worker = worker_type(work)

    def enter(self, landmarks: Landmarks) -> int:
        """Check that this node sees what the driver sees; the process id."""
        check_sight(landmarks)
        return os.getpid()

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed | None]:
        """None once the model is loaded, then the outcomes."""
        self._worker.load(tasks[0].job)
        yield None
        yield from self._worker.make(tasks)


@dataclass
class _Member:
    """An actor, what is waited for from it, and how far it is with its lease, since when."""

    actor: Any
    waits_for: Any
    pid: int = 0
    entered: bool = False
    loaded: bool = False
    experienced: bool = False
    lease: tuple[Task, ...] = ()
    since: float = 0.0


class RayEngine:
    """See `Engine`."""

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        worker_type: type[Worker] = Worker,
        image_timeout: float | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            address: of a Ray cluster; None starts one on this machine.
            workers: how many; one a GPU by default, without GPUs one a node.
            worker_type: what makes the images.
            image_timeout: seconds for an image, after which its worker counts as hung; None measures it.

        Raises:
            UserError: Ray is not installed.
        """
        require("ray", "--engine ray")
        self._address, self._wanted, self._worker_type = address, workers, worker_type
        self._deadlines = Deadlines(image_timeout)
        self._stack = ExitStack()
        self._members: dict[int, _Member] = {}
        self._hired = self._stillborn = 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are ready, on their nodes."""
        return [member.pid for member in self._members.values() if member.entered]

    def make(self, work: Work, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        """See `Engine`."""
        self._ray = import_ray()
        self._cluster: Cluster = self._stack.enter_context(ray_cluster(self._address, wanted=self._wanted))
        count = min(self._cluster.workers(self._wanted), len(tasks))
        tasks = [replace(task, path=task.path.absolute()) for task in tasks]
        clear(tasks)
        self._work = _absolute(work)
        self._landmarks = self._stack.enter_context(landmarks(tasks[0].path.parent, self._work))
        self._paths = {task.key: task.path for task in tasks}
        batch = _AUTO_BATCH if work.batch_size == "auto" else work.batch_size
        self._book = LeaseBook(tasks, workers=count, batch=batch)
        for _ in range(count):
            self._hire()
        yield from self._lead()

    def stop(self) -> list[Made | Failed]:
        """See `Engine`."""
        finished: list[Made | Failed] = []
        for number in list(self._members):
            finished += self._dismiss(number)
        self._stack.close()
        return finished

    def _hire(self) -> None:
        resources = {"num_gpus": 1} if self._cluster.gpus else {"num_cpus": 1}
        actor_type = self._ray.remote(RayWorker).options(max_restarts=0, scheduling_strategy="SPREAD", **resources)
        actor = actor_type.remote(self._work, self._worker_type)
        self._members[self._hired] = _Member(actor, actor.enter.remote(self._landmarks))
        self._hired += 1

    def _lead(self) -> Iterator[Made | Failed]:
        """Give out leases and take in outcomes until every task has one."""
        alone_since = time.monotonic()
        while self._book.undone:
            for number, member in self._members.items():
                if member.entered and member.waits_for is None:
                    self._lease(number, member)
            waited = {member.waits_for: number for number, member in self._members.items() if member.waits_for}
            ready, _ = self._ray.wait(list(waited), num_returns=1, timeout=1.0)
            for one in ready:
                yield from self._hear(waited[one])
            for number in self._hung():
                yield from self._bury(number, TimeoutError("It hung."))
            if any(member.entered for member in self._members.values()):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > _PATIENCE:
                raise UserError(
                    f"The Ray cluster gave no worker for {_PATIENCE:.0f} seconds.",
                    fix="Look with `ray status` whether its GPUs are taken by others.",
                )

    def _lease(self, number: int, member: _Member) -> None:
        tasks = self._book.take(number)
        if tasks:
            member.lease, member.loaded, member.since = tasks, False, time.monotonic()
            member.waits_for = member.actor.make.options(num_returns="streaming").remote(tasks)

    def _hear(self, number: int) -> Iterator[Made | Failed]:
        """One message of a worker: that it entered, loaded, made an image, finished its lease, or died."""
        member = self._members[number]
        try:
            if not member.entered:
                member.pid, member.entered = self._ray.get(member.waits_for), True
                member.waits_for = None
                return
            outcome = self._ray.get(next(member.waits_for))
        except StopIteration:
            member.waits_for = None
            self._deadlines.made(member.lease, time.monotonic() - member.since)
            self._book.returned(number, died=False)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FluxkitError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            yield from self._bury(number, error)
        else:
            if outcome is None:
                self._loaded(member)
            elif self._book.done(outcome.key):
                if isinstance(outcome, Made):
                    await_file(self._paths[outcome.key])
                yield outcome

    def _loaded(self, member: _Member) -> None:
        now = time.monotonic()
        self._deadlines.loaded(now - member.since)
        member.since, member.loaded, member.experienced, self._stillborn = now, True, True, 0

    def _hung(self) -> list[int]:
        """Workers that are at their lease for longer than can be, but for those that have said something unheard."""
        late = [number for number, member in self._members.items() if self._is_late(member)]
        return [number for number in late if not self._ray.wait([self._members[number].waits_for], timeout=0)[0]]

    def _is_late(self, member: _Member) -> bool:
        if not (member.lease and member.waits_for):
            return False
        # Asked anew each time: what the others have measured since counts for it too.
        download = not member.experienced and not isinstance(self._work.base, Path)
        bounds = self._deadlines
        allowed = bounds.to_make(member.lease) if member.loaded else bounds.to_load(download=download)
        return time.monotonic() - member.since > allowed

    def _bury(self, number: int, error: Exception) -> Iterator[Made | Failed]:
        """A worker is dead or hangs: what it wrote counts, the rest goes to others, another is hired in its place."""
        loaded = self._members[number].loaded
        yield from self._dismiss(number)
        self._stillborn += not loaded
        if self._stillborn >= DEATHS:
            raise UserError(
                f"{DEATHS} workers in a row ended before they had loaded the model ({_brief(error)}).",
                fix="Most often memory is short: use fewer --workers, or look into the system's log (dmesg).",
            )
        yield from self._book.returned(number, died=True, blame=loaded)
        if self._book.undone:
            self._hire()

    def _dismiss(self, number: int) -> list[Made | Failed]:
        """End a worker, if it lives; the images of its lease that are there and were not reported."""
        member = self._members.pop(number)
        with suppress(Exception):  # a cluster that is gone has nothing left to end
            self._ray.kill(member.actor)
        leased = self._book.leased(number)
        return [Made(task.key, 0) for task in leased if is_there(task.path) and self._book.done(task.key)]


def _absolute(work: Work) -> Work:
    """The work with paths that do not hang on the folder that this process is in."""
    base = Path(work.base).expanduser()
    stacks = {
        name: tuple(replace(one, path=one.path.absolute()) for one in stack) for name, stack in work.adapters.items()
    }
    return replace(work, base=base.resolve() if base.is_dir() else work.base, adapters=stacks)


def _brief(error: Exception) -> str:
    """Ray's explanations are a page long; what was raised is in the last line, what happened in the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[0]} {lines[-1]}" if len(lines) > 1 else "".join(lines)
