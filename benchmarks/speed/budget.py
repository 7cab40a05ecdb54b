"""Time limits: one for the run, one for each variant; and what becomes of the rest when a variant breaks the GPU."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from benchmarks.speed.device import usable
from benchmarks.speed.results import Results

TRIED = "FLUXKIT_BENCHMARK_TRIED"  # variants that a process before this one has begun
LEAST_S = 5  # with less than this, nothing new is begun


def process_seconds() -> float:
    """Since this process began: imports count. A process that took another's place (`exec`) is still the same."""
    return time.time() - float(psutil.Process().create_time())


@dataclass
class Budget:
    """What time is left, and for what it went.

    Args:
        results: where a variant's failure is noted.
        deadline: of the run, by `time.monotonic`.
        ends: of the variant that is under way; it may end sooner by itself.
        patience: how many times its limit a variant may take.
        tried: names of the variants that were begun, by this process or one before it.
    """

    results: Results
    deadline: float
    ends: float
    patience: int = 1
    tried: list[str] = field(default_factory=list)

    def attempt(self, name: str, limit_s: int, work: Callable[[], None], clear: Callable[[], None]) -> None:
        """Run a variant; whatever happens, the next one starts.

        Args:
            name: in the results.
            limit_s: after so long it is ended.
            work: the variant.
            clear: frees what it has loaded.
        """
        left = self.deadline - time.monotonic()
        if left < LEAST_S:
            return self.results.record(name, skipped="no time left")
        began = time.monotonic()
        seconds = min(limit_s * self.patience, left)
        self.ends = began + seconds
        try:
            signal.signal(signal.SIGALRM, _too_slow)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            text = "".join(traceback.format_exception(error))
            self.results.record(name, failed=f"{type(error).__name__}: {error}"[:600], trace=text[-1500:])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if name != "encode":
            self.tried.append(name)
            if not usable():
                self._go_on_afresh()
        clear()
        print(f"# {name}: {time.monotonic() - began:.1f} s, {self.deadline - time.monotonic():.0f} left", flush=True)
        return None

    def _go_on_afresh(self) -> None:
        """After an illegal access this process is done with the GPU: a new one makes the rest, in the same budget."""
        self.results.record("device-lost", tried=self.tried)
        os.environ[TRIED] = ",".join(self.tried)
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program


def begin_budget(results: Results, seconds: float, *, tiny: bool) -> Budget:
    """A budget that counts from the process's start, with what a process before this one has tried."""
    running = process_seconds()
    deadline = time.monotonic() + seconds - running
    tried = [one for one in os.environ.get(TRIED, "").split(",") if one]
    return Budget(results, deadline, deadline, 6 if tiny else 1, tried)


def _too_slow(*_: Any) -> None:
    raise TimeoutError("this variant's time is up")
