"""Who makes what, when workers come and go: tasks are leased, and come back when a worker dies.

A task that was leased when a worker died is a suspect: from then on it is leased alone and last, so that one that
kills its worker (a driver crash, memory) takes nothing with it, and is given up after the third time.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence

from fluxkit.sampling.work import Failed, Task, batch_of, model_of

DEATHS = 3
_LARGEST_LEASE = 4  # batches: what a dead worker can take with it, against the pause between two leases


class LeaseBook:
    """The tasks of a run, open, leased or done.

    Args:
        tasks: all of them.
        workers: how many share them.
        batch: images that a worker makes at once; a lease is a multiple.
    """

    def __init__(self, tasks: Sequence[Task], *, workers: int, batch: int) -> None:
        self._workers, self._batch = workers, batch
        self._groups: dict[tuple[object, ...], deque[Task]] = {}
        for task in sorted(tasks, key=lambda task: batch_of(task.job)):
            self._groups.setdefault(batch_of(task.job), deque()).append(task)
        self._suspects: deque[Task] = deque()
        self._deaths: Counter[str] = Counter()
        self._undone = {task.key for task in tasks}
        self._leased: dict[int, tuple[Task, ...]] = {}
        self._models: dict[int, tuple[str, float]] = {}

    @property
    def undone(self) -> int:
        """How many tasks have no outcome yet."""
        return len(self._undone)

    def take(self, worker: int) -> tuple[Task, ...]:
        """Lease tasks of one batch shape to a worker: of the model that it has, where there are some left.

        Returns:
            None at all when the rest is leased to others.
        """
        lease: tuple[Task, ...] = ()
        if self._groups:
            lease = self._from_groups(worker)
        elif self._suspects:
            lease = (self._suspects.popleft(),)
        if lease:
            self._leased[worker], self._models[worker] = lease, model_of(lease[0].job)
        return lease

    def done(self, key: str) -> bool:
        """Strike a task out; whether this is the first that is heard of it."""
        known = key in self._undone
        self._undone.discard(key)
        return known

    def leased(self, worker: int) -> tuple[Task, ...]:
        """What a worker holds and has not done."""
        return tuple(task for task in self._leased.get(worker, ()) if task.key in self._undone)

    def returned(self, worker: int, *, died: bool, blame: bool = True) -> list[Failed]:
        """Take back what a worker holds.

        Args:
            worker: which.
            died: whether it is gone.
            blame: whether its tasks may have killed it; not while it was still loading the model.

        Returns:
            Tasks that are given up.
        """
        tasks = self.leased(worker)
        self._leased.pop(worker, None)
        if died:
            self._models.pop(worker, None)
        failed = []
        for task in tasks:
            self._deaths[task.key] += died and blame
            if self._deaths[task.key] >= DEATHS:
                self._undone.discard(task.key)
                failed.append(_poison(task))
            elif self._deaths[task.key]:
                self._suspects.append(task)
            else:
                self._groups.setdefault(batch_of(task.job), deque()).append(task)
        return failed

    def _from_groups(self, worker: int) -> tuple[Task, ...]:
        mine = self._models.get(worker)
        others = Counter(model for one, model in self._models.items() if one != worker)

        def preference(batch: tuple[object, ...]) -> tuple[bool, int, int]:
            model = model_of(self._groups[batch][0].job)
            return (model != mine, others[model], -len(self._groups[batch]))

        batch = min(self._groups, key=preference)
        group = self._groups[batch]
        # Long leases first, short ones at the end, so that all workers end at about the same time.
        open_tasks = sum(len(one) for one in self._groups.values())
        batches = math.ceil(open_tasks / (2 * self._workers * self._batch))
        size = min(len(group), max(1, min(batches, _LARGEST_LEASE)) * self._batch)
        lease = tuple(group.popleft() for _ in range(size))
        if not group:
            del self._groups[batch]
        return lease


def _poison(task: Task) -> Failed:
    return Failed(
        task.key,
        f"The image of {task.job.prompt_name!a}, seed {task.job.seed}, ended its worker {DEATHS} times.",
        "Look into the system's log (dmesg) for a crash or a lack of memory; the other images are not affected.",
    )
