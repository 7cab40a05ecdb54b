"""A denoising step, or any call, taken apart: the GPU's time by kernel."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.speed.device import clock
from benchmarks.speed.run import Run

STEPS = 3


def profile_steps(run: Run, name: str, begin: Callable[[int, int], None]) -> None:
    """Where a step's time goes, by kernel; what is left of the wall's time, the GPU waits."""
    from torch.profiler import ProfilerActivity, profile

    begin(1, STEPS)
    start = clock()
    run.pipeline.denoise((0,), STEPS)
    wall = clock() - start
    begin(1, STEPS)
    with profile(activities=[ProfilerActivity.CUDA]) as prof:
        run.pipeline.denoise((0,), STEPS)
        clock()
    rows = _by_kernel(prof)
    table = {key: [round(ms / STEPS, 3), count / STEPS] for key, ms, count in rows[:25]}
    total = sum(ms for _, ms, _ in rows) / STEPS
    run.record(f"profile-{name}", wall_ms_step=1000 * wall / STEPS, kernels_ms_step=total, ms_and_calls_a_step=table)


def profile_call(run: Run, name: str, call: Callable[[], object]) -> None:
    """One call taken apart."""
    from torch.profiler import ProfilerActivity, profile

    with torch.no_grad(), profile(activities=[ProfilerActivity.CUDA]) as prof:
        call()
        clock()
    rows = _by_kernel(prof)
    table = {key: [round(ms, 3), count] for key, ms, count in rows[:16]}
    run.record(f"profile-{name}", kernels_ms=sum(ms for _, ms, _ in rows), ms_and_calls=table)


def _by_kernel(prof: Any) -> list[tuple[str, float, int]]:
    """Name, milliseconds and calls of each kernel, the longest first."""
    found: dict[str, tuple[float, int]] = {}
    for row in prof.key_averages():
        ms, count = found.get(row.key[:100], (0.0, 0))
        found[row.key[:100]] = ms + row.self_device_time_total / 1000, count + row.count
    return sorted(((key, *entry) for key, entry in found.items()), key=lambda one: -one[1])
