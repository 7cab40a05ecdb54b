import json
import os
from pathlib import Path

import pytest

from fluxkit.trainer import runs
from fluxkit.trainer.control import can_be_asked, is_complete, saved_steps, signal_file
from tests.trainer.test_runs import RECORD


@pytest.mark.parametrize(
    ("release", "can"),
    [("1.2.5", False), ("2.2.1", False), ("3.1.6", False), ("3.2.0", False), ("3.2.1", True), ("4.10.1", True)],
)
def test_which_releases_can_be_asked(release: str, can: bool) -> None:
    assert can_be_asked(release) is can


def test_each_launch_counts_from_nothing(tmp_path: Path) -> None:
    signals = signal_file(tmp_path)
    signals.ask_for_checkpoint()
    assert json.loads(signals.path.read_text()) == {"manual_checkpoint": 1}
    signals.reset()
    assert json.loads(signals.path.read_text()) == {}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = runs.new_run(tmp_path, RECORD).output_dir / "checkpoint-8"
    folder.mkdir(parents=True)
    return folder


def fill(folder: Path, *names: str, age: float = 0.0) -> None:
    for name in names:
        (folder / name).touch()
        when = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (when, when))


def test_a_checkpoint_in_the_making_is_not_complete(checkpoint: Path) -> None:
    fill(checkpoint, runs.ADAPTER_FILE, age=60)
    assert not is_complete(checkpoint)  # its state comes last
    fill(checkpoint, "optimizer.bin", "training_state.json", age=-60)
    assert not is_complete(checkpoint)  # something is still being written, however long this test takes
    fill(checkpoint, "optimizer.bin", "training_state.json", age=60)
    assert is_complete(checkpoint)


def test_a_guard_says_that_it_is_complete(checkpoint: Path) -> None:
    fill(checkpoint, runs.ADAPTER_FILE, "training_state.json", ".guard")
    assert is_complete(checkpoint)


def test_the_steps_saved_are_those_of_complete_checkpoints(checkpoint: Path) -> None:
    run = runs.list_runs(checkpoint.parents[2])[0]
    fill(checkpoint, runs.ADAPTER_FILE, "training_state.json", age=60)
    (checkpoint.parent / "checkpoint-9").mkdir()
    fill(checkpoint.parent / "checkpoint-9", runs.ADAPTER_FILE, age=60)
    assert saved_steps(run) == [8]
