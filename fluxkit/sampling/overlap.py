"""Pictures are compressed and written while the next batch is denoised."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")


class BackgroundWriter(Generic[Result]):
    """One thread that writes, behind a queue of bounded length; results come back in the order given.

    One thread is enough: zlib takes 0.1 to 0.3 s for an image of 1024×1024, a GPU two seconds to make it.

    Args:
        depth: results that may be waited for at once; each holds a picture (3 MB at 1024×1024).
    """

    def __init__(self, depth: int = 8) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fluxkit-writer")
        self._pending: deque[Future[Result]] = deque()

    def put(self, write: Callable[[], Result]) -> Iterator[Result]:
        """Hand over something to write; yields what has been written by now, waiting when the queue is full.

        Raises:
            Exception: whatever an earlier `write` raised, in its turn.
        """
        self._pending.append(self._pool.submit(write))
        yield from self._finished(self._depth)

    def drain(self) -> Iterator[Result]:
        """Wait for the rest."""
        yield from self._finished(0)

    def close(self) -> None:
        """End the thread, after what was handed over is written. The writer can't be used any more."""
        self._pool.shutdown()

    def _finished(self, allowed: int) -> Iterator[Result]:
        while self._pending and (len(self._pending) > allowed or self._pending[0].done()):
            # Waited for before it leaves the queue: Ctrl-C while waiting must not lose it.
            self._pending[0].exception()
            yield self._pending.popleft().result()
