"""What this machine has: NVIDIA GPUs through NVML, memory through psutil, without importing torch."""

from dataclasses import dataclass
from typing import Any


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
