"""What this machine has: NVIDIA GPUs through NVML, memory through psutil, without importing torch."""

import contextlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

WATCH_SECONDS = 0.25
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class GpuProcess:
    """A program that holds memory of a GPU.

    Args:
        pid: its process id.
        name: its program's name; empty where it can't be seen.
        memory_bytes: what it holds, in bytes; 0 where the driver doesn't say.
    """

    pid: int
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Args:
        name: as the driver gives it.
        memory_bytes: the card's whole memory, in bytes.
        free_bytes: what is free now, in bytes.
        driver: the driver's version.
        cuda: the newest CUDA that the driver can run, e.g. `13.0`.
        capability: compute capability, e.g. (12, 0); (0, 0) where it is not known.
        processes: who holds memory of it.
    """

    name: str
    memory_bytes: int
    free_bytes: int
    driver: str
    cuda: str = ""
    capability: tuple[int, int] = (0, 0)
    processes: tuple[GpuProcess, ...] = ()

    @property
    def memory_gib(self) -> float:
        """The card's whole memory in GiB."""
        return self.memory_bytes / 2**30


@dataclass(frozen=True)
class HostMemory:
    """RAM and swap, in bytes."""

    total: int
    available: int
    swap: int


def gpus(*, details: bool = False) -> list[Gpu]:
    """The NVIDIA GPUs of this machine, in NVML's order; empty without a GPU or a driver.

    Args:
        details: CUDA's version, compute capability and processes too.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            name = str(pynvml.nvmlDeviceGetName(handle))
            more = _details(handle) if details else {}
            found.append(Gpu(name, int(memory.total), int(memory.free), driver, **more))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


class MemoryWatch:
    """The most memory that this process's children held, and that was in use on a card, while the block ran.

    Args:
        card: the GPU's number in NVML's order.
    """

    def __init__(self, card: int = 0) -> None:
        self._card = card
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.host_bytes = 0
        self.card_bytes = 0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.host_bytes = max(self.host_bytes, children_bytes())
            found = gpus()
            if self._card < len(found):
                gpu = found[self._card]
                self.card_bytes = max(self.card_bytes, gpu.memory_bytes - gpu.free_bytes)
            if self._stop.wait(WATCH_SECONDS):
                return


def children_bytes() -> int:
    """Memory that all processes which this one started hold, in bytes; what they share counts for each."""
    import psutil

    total = 0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone by now
            total += held_bytes(child.pid) or int(child.memory_info().rss)
    return total


def held_bytes(pid: int) -> int | None:
    """Resident memory of a process that is no file's, in bytes; None where the system doesn't say.

    A model's weights are read through a map of their file: 22 GiB count as resident while they are quantized, and
    the kernel takes them back whenever it needs the room.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * sum(int(amount) for amount in found) if found else None


def container_limit() -> int | None:
    """How much memory the container around this process may take, in bytes; None where there is no limit."""
    for path in _CGROUP_LIMITS:
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        # "max", or in the old format a number beyond every machine's memory.
        return int(text) if text.isdigit() and int(text) < 2**60 else None
    return None


def training_card() -> int:
    """The number, in NVML's order, of the GPU that a trainer started from here uses first."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdigit() else 0


def host_memory() -> HostMemory:
    """RAM and swap of this machine."""
    import psutil

    memory = psutil.virtual_memory()
    return HostMemory(memory.total, memory.available, psutil.swap_memory().total)


def _details(handle: Any) -> dict[str, Any]:
    import pynvml

    version = int(pynvml.nvmlSystemGetCudaDriverVersion())
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    return {
        "cuda": f"{version // 1000}.{version % 1000 // 10}",
        "capability": (int(major), int(minor)),
        "processes": tuple(GpuProcess(one.pid, _program(one.pid), int(one.usedGpuMemory or 0)) for one in running),
    }


def _program(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:  # another user's, in another container, or gone by now
        return ""
