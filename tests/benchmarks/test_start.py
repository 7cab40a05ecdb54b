"""benchmarks/start.py: a case that fails or hangs leaves its line, and the others theirs."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import start

HANGS = """
import atexit, pathlib, sys, time
atexit.register(lambda: pathlib.Path(sys.argv[1]).write_text("seen"))
print("begun", flush=True)
time.sleep(600)
"""


def bench(tmp_path: Path, budget: int = 100) -> start.Bench:
    return start.Bench(
        argparse.Namespace(out=tmp_path / "out", work=tmp_path / "work", tiny=True, small_t5=False, budget=budget)
    )


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out/start.jsonl").read_text().splitlines()]


def test_a_command_whose_time_is_up_writes_down_what_it_saw(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(seen)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    first = process.stdout.readline()
    assert "KeyboardInterrupt" in start.end(process)
    assert (first, seen.read_text()) == ("begun\n", "seen")
    assert process.returncode is not None


def test_a_case_that_fails_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(tmp_path)

    def run(case: start.Case) -> dict[str, Any]:
        if case.name == "bad":
            raise KeyError("spans")
        made.record(case=case.name)
        return {}

    monkeypatch.setattr(made, "run", run)
    for name in ("bad", "good"):
        made.attempt(start.Case(name, 10, 5))
    bench(tmp_path, budget=5).attempt(start.Case("late", 10, 5))
    assert [(line["case"], *line.keys() - {"case"}) for line in lines(tmp_path)] == [
        ("bad", "failed"),
        ("good",),
        ("late", "skipped"),
    ]


def test_a_step_is_timed_without_the_first_which_builds_kernels() -> None:
    spans = [("first step", 10.0, 16.0), ("decode", 25.5, 25.6), ("write", 25.7, 26.0), ("decode", 40.0, 40.1)]
    seen = {"spans": spans, "end": 41.0, "steps": 40, "steps_to_decode": 20}
    facts = start.summary(seen)
    assert (facts["to_first_step_s"], facts["first_step_done_s"], facts["s_step"]) == (10.0, 16.0, 0.5)
    assert start.summary({"spans": [], "end": 1.0, "steps": 0})["s_step"] is None


def test_a_command_that_cant_start_is_known_before_the_model_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start.Bench, "prepare", lambda _: None)
    facts: dict[str, Any] = {"rc": 70, "spans": []}
    monkeypatch.setattr(start.Bench, "run", lambda *_: facts)
    with pytest.raises(SystemExit, match="can't start here"):
        bench(tmp_path).rehearse()
    facts["spans"] = [("load transformer", 1.0, 2.0)]
    bench(tmp_path).rehearse()  # what the tiny model alone can't do on a GPU is no reason to give up


def test_a_module_that_somebody_asked_for_before_is_patched_all_the_same(tmp_path: Path) -> None:
    result = tmp_path / "seen.json"
    code = "from importlib.util import find_spec; find_spec('torch'); import torch"
    hooks = Path(start.__file__).with_name("start_hooks")
    env = {**os.environ, "PYTHONPATH": str(hooks), "FLUXKIT_START_RESULT": str(result)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert "torch" in json.loads(result.read_text())  # the card is made small there


def test_a_name_that_is_no_case_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["start.py", "--out", str(tmp_path), "--work", str(tmp_path), "--cases", "cap-11,streamed"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        start.main()
    assert len({case.name for case in start.CASES}) == len(start.CASES)
