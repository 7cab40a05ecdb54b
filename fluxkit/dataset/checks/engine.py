"""All pictures of a folder, measured on every core, in the folder's order, at most a few at a time in memory.

Threads: Pillow, OpenCV, hashing and most of NumPy let go of Python's lock. Processes were no faster
(docs/benchmarks.md), and would have to be started and sent to.
"""

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.checks.cache import MeasureCache, file_state
from fluxkit.dataset.checks.measure import LARGEST_FILE, Measured, digest, measure, open_regular
from fluxkit.dataset.faces import FaceDetector


@dataclass(frozen=True, slots=True)
class MeasuredFile:
    """One file's measurement.

    Args:
        path: the file.
        digest: hexadecimal SHA-256 of its bytes; empty where it couldn't be read.
        measured: what it holds.
    """

    path: Path
    digest: str
    measured: Measured


def measure_all(
    paths: Iterable[Path],
    *,
    detector: FaceDetector | None = None,
    cache: MeasureCache | None = None,
    workers: int | None = None,
) -> Iterator[MeasuredFile]:
    """Measure pictures, in the order given.

    Args:
        paths: the files; read as they are needed.
        detector: finds faces; None leaves them out.
        cache: what was measured before.
        workers: threads; None takes one a core.
    """
    count = workers or cores()
    remembered = cache or MeasureCache(None, None)
    waiting: deque[Future[MeasuredFile]] = deque()
    with _quiet(), ThreadPoolExecutor(count, thread_name_prefix="measure") as pool:
        try:
            for path in paths:
                waiting.append(_known(path, remembered) or pool.submit(_one, path, detector, remembered))
                if len(waiting) >= 4 * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _known(path: Path, cache: MeasureCache) -> "Future[MeasuredFile] | None":
    try:
        found = cache.known(path, file_state(path.stat()))
    except (OSError, ValueError):
        return None
    if found is None:
        return None
    future: Future[MeasuredFile] = Future()
    future.set_result(MeasuredFile(path, *found))
    return future


def _one(path: Path, detector: FaceDetector | None, cache: MeasureCache) -> MeasuredFile:
    try:
        with open_regular(path) as handle:
            state = os.fstat(handle.fileno())
            name = digest(handle) if 0 < state.st_size <= LARGEST_FILE else ""
            measured = (cache.by_digest(name) if name else None) or measure(handle, detector)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return MeasuredFile(path, "", Measured("unreadable", reason))
    except MemoryError:
        return MeasuredFile(path, "", Measured("too-large", "not enough memory"))
    if name:
        cache.keep(path, file_state(state), name, measured)
    return MeasuredFile(path, name, measured)


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns about odd EXIF and about large pictures; what matters of that is a finding."""
    # The filters belong to the whole process: they are set here, not in the threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
