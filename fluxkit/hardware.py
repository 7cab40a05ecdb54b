"""What this machine has: NVIDIA GPUs through NVML, without importing torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Args:
        name: as the driver gives it.
        memory_bytes: the card's whole memory, in bytes.
        free_bytes: what is free now, in bytes.
        driver: the driver's version.
    """

    name: str
    memory_bytes: int
    free_bytes: int
    driver: str

    @property
    def memory_gib(self) -> float:
        """The card's whole memory in GiB."""
        return self.memory_bytes / 2**30


def gpus() -> list[Gpu]:
    """The NVIDIA GPUs of this machine, in NVML's order; empty without a GPU or a driver."""
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
            found.append(Gpu(name=name, memory_bytes=int(memory.total), free_bytes=int(memory.free), driver=driver))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
