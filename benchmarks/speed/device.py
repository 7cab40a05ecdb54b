"""The device that is measured: clocks that wait for it, its memory, and whether it still works."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BF16 = torch.bfloat16


def clock() -> float:
    """Seconds, when all work that was given to the device is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call: Callable[[], object], repeat: int = 10) -> float:
    """The mean of several calls, warm."""
    with torch.no_grad():
        for _ in range(2):
            call()
        began = clock()
        for _ in range(repeat):
            call()
        return (clock() - began) / repeat


def graphed_seconds(call: Callable[[], object], repeat: int = 20) -> float:
    """How long the GPU works on a call, without what the CPU needs to give it the work."""
    if DEVICE.type != "cuda":
        return seconds_of(call, repeat=1)
    with torch.no_grad():
        call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeat):
                call()
        return seconds_of(graph.replay, repeat=3) / repeat


def free() -> None:
    """Give memory back."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def peak() -> float:
    """GiB on the device at most since the last reset."""
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0


def peak_reset() -> None:
    """Forget the peak."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def allocated() -> float:
    """GiB on the device now."""
    return torch.cuda.memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0


def usable() -> bool:
    """Whether the GPU still does what this process asks."""
    try:
        torch.zeros(1, device=DEVICE).add_(1).item()
    except RuntimeError as error:
        return isinstance(error, torch.OutOfMemoryError)
    return True


@contextlib.contextmanager
def on_device() -> Iterator[None]:
    """Modules made inside are in bf16 on the device."""
    torch.set_default_dtype(BF16)
    try:
        with torch.device(DEVICE):
            yield
    finally:
        torch.set_default_dtype(torch.float32)
