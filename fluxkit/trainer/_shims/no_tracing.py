"""Shim: Python doesn't keep a record of each piece of memory while it trains.

Why: SimpleTuner's `FactoryRegistry` calls `tracemalloc.start()` to log how much memory making the data backends takes,
and nothing ever stops it: from there to the end of the run each object that Python makes is written down with where it
was made. A step of one picture waits for Python, not for the GPU; and TensorBoard, which works out the checksum of
each validation image byte by byte in Python, takes 13 times as long for it.
The factory is left with what it asks for where tracing is not to be had: the process's resident memory.
FLUXKIT_TRACING=1 leaves everything as SimpleTuner has it, for comparisons.
Bound to: the releases of the defect `tracemalloc` in releases.toml.
Measured, 2026-11-24, SimpleTuner 4.8.0, tiny FLUX, 2 shared cores, 4 pairs of 60 steps: the fastest step took 0.27 to
0.28 s, with this shim 0.20 to 0.24 s. A checksum of 1 MB took 2.96 s traced, 0.23 s not.
Measured, 2026-11-27, SimpleTuner 4.8.0, full-size FLUX in int8, H200, 12 steps each: a step of one picture took 2.17 s
at 1024 and 2.00 s at 512, with this shim 1.44 s and 1.42 s. The memory was the same.
"""

import os
from typing import Any

MODULES = ("simpletuner.helpers.data_backend.factory",)


class _NotTracing:
    """What the factory uses of `tracemalloc`."""

    @staticmethod
    def start(*_: Any) -> None:
        """Don't."""

    @staticmethod
    def get_traced_memory() -> tuple[int, int]:
        """Make it take its own second way, the resident memory.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("not tracing")


def apply(factory: Any) -> None:
    """Hand the factory another `tracemalloc`: everyone else's is the real one."""
    if hasattr(factory, "tracemalloc") and os.environ.get("FLUXKIT_TRACING") != "1":
        factory.tracemalloc = _NotTracing
