"""The memory in use on the GPUs that the trainer sees, looked at in the background: a driver may take its time."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fluxkit.hardware import gpus

SECONDS = 5.0


class GpuMeter:
    """Reads NVML every few seconds; without a GPU it reads nothing.

    Args:
        visible: `CUDA_VISIBLE_DEVICES` of the trainer, if it is set: indexes are understood, anything else means all.
    """

    def __init__(self, visible: str | None) -> None:
        self._visible = visible
        self._found: tuple[tuple[int, int], ...] = ()
        self._over = threading.Event()

    def read(self) -> tuple[tuple[int, int], ...]:
        """Used and whole memory of each GPU, in bytes, as of the last look."""
        return self._found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look while the body runs."""
        thread = threading.Thread(target=self._look, daemon=True, name="fluxkit-gpu")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(1)

    def _look(self) -> None:
        while not self._over.is_set():
            found = gpus()
            if not found:
                return
            chosen = [found[index] for index in _indexes(self._visible, len(found))]
            self._found = tuple((gpu.memory_bytes - gpu.free_bytes, gpu.memory_bytes) for gpu in chosen)
            self._over.wait(SECONDS)


def meter_for(env: Mapping[str, str]) -> GpuMeter:
    """The meter for a trainer with this environment."""
    return GpuMeter(env.get("CUDA_VISIBLE_DEVICES"))


def _indexes(visible: str | None, count: int) -> list[int]:
    parts = [part.strip() for part in (visible or "").split(",") if part.strip()]
    if parts and all(part.isascii() and part.isdigit() and int(part) < count for part in parts):
        return [int(part) for part in parts]
    return list(range(count))
