from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from fluxkit.trainer import runs
from fluxkit.trainer.pace import StepClock, measured_run, pace_in_log
from fluxkit.trainer.progress import Step

STEP = Step(step=1, total=10, loss=0.5, learning_rate=1e-4, seconds_per_step=None)
BAR = "Epoch 1/1, Steps:  67%|#| {step}/9 [00:10<00:05,  {pace}, lr=1e-5, step_loss=0.5]"
RECORD = {"base": "x", "revision": None, "release": "4.8.0", "steps": 10, "adapter": "lycoris"}


def timed(*moments: float) -> float | None:
    clock = StepClock(now=iter(moments).__next__)
    for number in range(1, len(moments) + 1):
        clock.step(replace(STEP, step=number))
    return clock.seconds_per_step()


def test_the_pace_is_the_median_so_that_a_validation_in_between_does_not_count() -> None:
    assert timed(0, 30, 32, 34, 114, 116, 118) == 2.0


def test_too_few_steps_are_no_measurement() -> None:
    assert timed(0, 1, 2) is None


def test_steps_that_were_not_seen_share_their_time() -> None:
    ticks = count(0, 4)
    clock = StepClock(now=lambda: float(next(ticks)))
    for number in (1, 3, 5, 7):
        clock.step(replace(STEP, step=number))
    assert clock.seconds_per_step() == 2.0


def make_run(folder: Path, *, rehearsal: bool = False, log: str = "", **changes: object) -> runs.Run:
    run = runs.new_run(folder, {**RECORD, "rehearsal": rehearsal}).update(status="finished", **changes)
    run.log_file.parent.mkdir()
    run.log_file.write_text(log)
    return run


def test_the_newest_real_run_tells_the_pace(tmp_path: Path) -> None:
    make_run(tmp_path, seconds_per_step=9.0)
    newest = make_run(tmp_path, seconds_per_step=1.5, resolutions=(1024, 512))
    make_run(tmp_path, rehearsal=True, seconds_per_step=0.1)
    make_run(tmp_path)  # ended before its first steps
    found = measured_run(tmp_path)
    assert found is not None
    assert (found[0].record.id, found[1]) == (newest.record.id, 1.5)
    assert found[0].record.resolutions == (1024, 512)


def test_no_real_run_no_pace(tmp_path: Path) -> None:
    make_run(tmp_path, rehearsal=True, seconds_per_step=0.1)
    assert measured_run(tmp_path) is None
    assert measured_run(tmp_path / "none") is None


def test_a_record_from_before_the_pace_was_kept_is_read_and_its_log_tells(tmp_path: Path) -> None:
    bars = [
        BAR.format(step=step, pace=pace) for step, pace in enumerate(("40.0s/it", *["2.00s/it"] * 4, "2.00it/s"), 1)
    ]
    run = make_run(tmp_path, log="\r".join(bars))
    old = {name: value for name, value in RECORD.items()} | {"id": run.record.id, "status": "finished", "created": ""}
    runs.write_json(run.folder / "run.json", old | {"rehearsal": False, "modules": None, "message": ""})
    found = measured_run(tmp_path)
    assert found is not None
    assert found[1] == pytest.approx(2.0)


def test_a_log_without_steps_tells_nothing(tmp_path: Path) -> None:
    assert pace_in_log(tmp_path / "missing.log") is None
    (tmp_path / "some.log").write_bytes(b"\xff\x00 Steps: nonsense")
    assert pace_in_log(tmp_path / "some.log") is None
