"""What is asked of the device itself: its name, what is free on it, and to give back what is not used."""

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def free_gpu_bytes(device: "torch.device") -> int | None:
    """What is free on the GPU now, in bytes; None on a CPU."""
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def gpu_name(device: "torch.device") -> str:
    """The GPU's name; `cpu` without one."""
    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
