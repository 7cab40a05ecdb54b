import datetime as dt
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer import runs

DAY = dt.date(2026, 11, 24)
RECORD = {
    "rehearsal": False,
    "base": "black-forest-labs/FLUX.1-dev",
    "revision": None,
    "release": "4.8.0",
    "steps": 10,
    "adapter": "lycoris",
}


def test_ids_count_up_within_a_day(tmp_path: Path) -> None:
    ids = [runs.new_run(tmp_path, RECORD, today=DAY).record.id for _ in range(2)]
    assert ids == ["20261124-001", "20261124-002"]


def test_a_thousandth_run_is_still_the_newest(tmp_path: Path) -> None:
    for number in ("999", "1000"):
        (tmp_path / f"20261124-{number}").mkdir()
        record = runs.RunRecord(id=f"20261124-{number}", status="finished", created="", **RECORD)
        runs.Run(tmp_path / f"20261124-{number}", record).update()
    assert runs.list_runs(tmp_path)[-1].record.id == "20261124-1000"


def test_the_newest_unfinished_run_continues_and_a_rehearsal_never_does(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, RECORD, today=DAY).update(status="interrupted")
    runs.new_run(tmp_path, {**RECORD, "rehearsal": True}, today=DAY).update(status="failed")
    found = runs.unfinished(tmp_path)
    assert found is not None
    assert found.record.id == run.record.id
    run.update(status="finished")
    assert runs.unfinished(tmp_path) is None


def test_checkpoints_are_sorted_by_step_not_by_name(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, RECORD, today=DAY)
    for step in (1000, 200):
        folder = run.output_dir / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / runs.ADAPTER_FILE).touch()
    (run.output_dir / "checkpoint-3000").mkdir()  # no weights in it
    assert list(run.checkpoints()) == [200, 1000]


def test_an_unknown_run_names_the_known_ones(tmp_path: Path) -> None:
    runs.new_run(tmp_path, RECORD, today=DAY)
    with pytest.raises(UserError) as caught:
        runs.find_run(tmp_path, "20200101-001")
    assert "20261124-001" in caught.value.fix


def test_a_record_of_a_newer_fluxkit_is_refused_not_guessed(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path, RECORD, today=DAY)
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace('"steps"', '"epochs"'))
    with pytest.raises(UserError, match="not a record"):
        runs.list_runs(tmp_path)
