"""Shim: the threads that sort photos into buckets hand their results over a queue of threads, not of processes.

Why: SimpleTuner starts threads, but gives them `multiprocessing.Queue`s and stops reading when all threads have ended
and the queues look empty. What a thread put last may then still be with the queue's own feeder thread: on a busy
machine a photo, or a worker's whole share of them, is silently missing from its bucket, and from the saved cache.
Bound to: the releases of the defect `thread-queue` in releases.toml.
Seen, 2026-11-24, SimpleTuner 4.8.0 on 2 busy cores: 1 of 8 photos lost, 46 steps an epoch instead of 47.
"""

import queue
from typing import Any

MODULES = ("simpletuner.helpers.metadata.backends.base", "helpers.metadata.backends.base")


def apply(base: Any) -> None:
    """Replace the module's `Queue` unless its workers are processes."""
    of_processes = base.Queue

    def make(*args: Any) -> Any:
        processes = base.StateTracker.get_args().enable_multiprocessing
        return of_processes(*args) if processes else queue.Queue(*args)

    base.Queue = make
