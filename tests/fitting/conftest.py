from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkit.fitting.adapter import MEASURED_PARAMETERS
from fluxkit.fitting.model import DiskSpace, Machine, TrainingPlan
from fluxkit.hardware import Gpu, GpuProcess, HostMemory
from fluxkit.rendering.profiles import load_profile

GIB = 2**30


@pytest.fixture
def plan_for() -> Callable[..., TrainingPlan]:
    """The default project, with the changes given; a profile by its name."""

    def make(profile: str = "24gb", **changes: Any) -> TrainingPlan:
        values: dict[str, Any] = {
            "release": "4.8.0",
            "resolutions": (1024, 512),
            "adapter_parameters": MEASURED_PARAMETERS,
            "checkpoints": 7,
            "cache_bytes": 30_000_000,
        }
        return TrainingPlan(profile=load_profile(profile), **{**values, **changes})

    return make


@pytest.fixture
def machine_with() -> Callable[..., Machine]:
    """A machine with a card of so many GiB, so many of them free, RAM, swap and disk."""

    def make(
        gib: float | None = 24, free: float | None = None, *, ram: float = 64, swap: float = 0,
        limit: float | None = None, disk: float = 500e9, model_disk: float | None = None,
    ) -> Machine:  # fmt: skip
        left = gib if free is None else free
        holders = (GpuProcess(77, "blender", 5 * GIB),) if free is not None else ()
        gpu = Gpu("card", int((gib or 0) * GIB), int((left or 0) * GIB), "580", "13.0", (8, 9), holders)
        project = DiskSpace(Path("/p"), 1, int(disk))
        model = project if model_disk is None else DiskSpace(Path("/m"), 2, int(model_disk))
        return Machine(
            gpu if gib else None,
            HostMemory(int(ram * GIB), int(ram * GIB * 0.9), int(swap * GIB)),
            int(limit * GIB) if limit else None,
            {"the project": project, "the model": model},
        )

    return make
