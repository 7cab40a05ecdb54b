"""A variant's time, and what becomes of the rest when one breaks the GPU."""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # imports torch


def budget(folder: Path, deadline: float = math.inf, **more: Any) -> Any:
    from benchmarks.speed.budget import Budget
    from benchmarks.speed.results import Results

    return Budget(Results(folder, ""), deadline, deadline, **more)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def broken() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_new_process_makes_the_rest_when_the_gpu_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.speed import budget as module

    started: list[Any] = []
    cleared: list[bool] = []

    class Gone(BaseException):
        pass

    def execv(program: str, argv: list[str]) -> None:
        started.append((program, argv, os.environ[module.TRIED]))
        raise Gone

    monkeypatch.setenv(module.TRIED, "")
    monkeypatch.setattr(module, "usable", lambda: False)
    monkeypatch.setattr(module.os, "execv", execv)
    with pytest.raises(Gone):
        budget(tmp_path, tried=["rates"]).attempt("check", 10, broken, lambda: cleared.append(True))
    assert started == [(sys.executable, [sys.executable, *sys.argv], "rates,check")]
    assert not cleared  # a lost GPU can't even be asked to free memory
    failed, lost = lines(tmp_path)
    assert "illegal memory access" in failed["failed"]
    assert (lost["variant"], lost["tried"]) == ("device-lost", ["rates", "check"])


def test_a_variant_that_takes_too_long_is_ended_and_the_next_one_starts(tmp_path: Path) -> None:
    made = budget(tmp_path)
    done: list[str] = []
    made.attempt("hangs", 1, lambda: time.sleep(600), lambda: done.append("cleared"))
    made.attempt("next", 60, lambda: done.append("next"), lambda: done.append("cleared"))
    assert done == ["cleared", "next", "cleared"]
    assert made.tried == ["hangs", "next"]
    assert [(line["variant"], line["failed"]) for line in lines(tmp_path)] == [
        ("hangs", "TimeoutError: this variant's time is up")
    ]


def test_without_time_nothing_is_begun(tmp_path: Path) -> None:
    made = budget(tmp_path, deadline=time.monotonic() + 4)
    made.attempt("late", 10, broken, broken)
    assert [(line["variant"], line["skipped"]) for line in lines(tmp_path)] == [("late", "no time left")]
    assert made.tried == []
