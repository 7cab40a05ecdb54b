"""Work on several cores, results in order, few of them in memory."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


def in_turn(
    work: Callable[[str], _Result], names: Sequence[str], workers: int
) -> Generator[tuple[str, _Result], None, None]:
    """Call `work` with each name on threads (Pillow works outside Python's lock).

    Yields:
        Each name and its result, in the order given; at most two results a worker wait in memory. When the caller
        stops early, what has not begun is dropped.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[str, Future[_Result]]] = deque()
        try:
            for name in names:
                waiting.append((name, pool.submit(work, name)))
                if len(waiting) >= 2 * workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
