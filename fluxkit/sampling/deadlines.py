"""How long a worker may be silent before it counts as hung: many times what the run itself has measured.

A hung driver, a network disk that went away or a stopped process tells nothing and never dies. How long an image takes
is known only from this run's GPUs, so the first ones have a bound that no working machine meets. A bound that is too
short costs work that was nearly done, one that is too long costs waiting: they are generous.
"""

from collections.abc import Sequence

from fluxkit.sampling.work import Task

GENEROUS = 10.0  # times the slowest that was measured: another machine of the cluster may be slower
LEAST_SECONDS = 120.0  # compiling for a new shape, a disk that wakes up, somebody else's job on the GPU
UNKNOWN_IMAGE_SECONDS = 3600.0  # an image, before one was measured
UNKNOWN_LOAD_SECONDS = 4 * 3600.0  # loading the model, before it was measured: it may be downloaded


class Deadlines:
    """Learns from leases that ended, and says how long the next ones may take.

    Args:
        per_image: seconds that an image may take at the most, as the user says; None measures it.
    """

    def __init__(self, per_image: float | None = None) -> None:
        self._per_image = per_image
        self._slowest_load: float | None = None
        self._slowest_work: float | None = None  # seconds for a pixel's denoising step

    def loaded(self, seconds: float) -> None:
        """Note how long a worker took to have its model and adapter in place."""
        self._slowest_load = max(seconds, self._slowest_load or 0.0)

    def made(self, tasks: Sequence[Task], seconds: float) -> None:
        """Note how long a lease took, its model in place."""
        self._slowest_work = max(seconds / _work(tasks), self._slowest_work or 0.0)

    def to_load(self, *, download: bool) -> float:
        """Seconds that loading may take; `download`: whether the model may have to be fetched from the Hub first."""
        return _generous(None if download else self._slowest_load, UNKNOWN_LOAD_SECONDS)

    def to_make(self, tasks: Sequence[Task]) -> float:
        """Seconds that a lease may take, its model in place."""
        if self._per_image is not None:
            return self._per_image * len(tasks)
        known = None if self._slowest_work is None else self._slowest_work * _work(tasks)
        return _generous(known, UNKNOWN_IMAGE_SECONDS * len(tasks))


def _generous(measured: float | None, unknown: float) -> float:
    return unknown if measured is None else max(LEAST_SECONDS, GENEROUS * measured)


def _work(tasks: Sequence[Task]) -> float:
    """Pixels × denoising steps. Attention makes large images dearer than that: the generosity covers it."""
    return float(sum(task.job.width * task.job.height * task.job.num_inference_steps for task in tasks))
