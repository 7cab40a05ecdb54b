import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxkit.trainer import runs
from fluxkit.trainer.checkpoints import find_resume_point, set_aside
from fluxkit.trainer.runs import ADAPTER_FILE
from tests.trainer.checkpointed import BACKEND, write_checkpoint

RECORD = {"rehearsal": False, "base": "b", "revision": None, "release": "4.8.0", "steps": 9, "adapter": "lycoris"}


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    return runs.new_run(tmp_path, RECORD)


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:-7])

    return damage


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def flip_a_byte(folder: Path) -> None:
    path = folder / "optimizer.bin"
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"\x01" * 4096) + 100] = 0
    path.write_bytes(contents)


def zero_filled(folder: Path) -> None:
    path = folder / "scheduler.bin"
    path.write_bytes(b"\0" * path.stat().st_size)


def with_nan(folder: Path) -> None:
    save_file({"lycoris_m.lokr_w2": np.array([1, np.nan], np.float32)}, folder / ADAPTER_FILE)


def empty_state(folder: Path) -> None:
    (folder / "training_state.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut(ADAPTER_FILE), "adapter"),
        (with_nan, "NaN"),
        (cut("optimizer.bin"), "optimizer.bin"),
        (flip_a_byte, "optimizer.bin"),
        (zero_filled, "scheduler.bin"),
        (cut("random_states_0.pkl"), "random_states_0.pkl"),
        (drop("optimizer.bin"), "optimizer.bin is missing"),
        (drop("scheduler.bin"), "scheduler.bin is missing"),
        (drop(ADAPTER_FILE), "is missing"),
        (cut("training_state.json"), "training_state.json is damaged"),
        (empty_state, "names no step"),
        (cut(f"training_state-{BACKEND}.json"), "is damaged"),
        (cut("checkpoint_manifest.json"), "checkpoint_manifest.json is damaged"),
        (drop(".guard"), "was not finished"),
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over_with_its_reason(
    run: runs.Run, damage: Callable[[Path], None], named: str
) -> None:
    good, bad = write_checkpoint(run.output_dir, 3), write_checkpoint(run.output_dir, 6)
    damage(bad)
    point = find_resume_point(run)
    assert (point.step, point.folder) == (3, good)
    (passed_over,) = point.damaged
    assert passed_over.folder == bad
    assert named in passed_over.reason


@pytest.mark.parametrize(("manifest", "guard"), [(False, False), (True, False), (True, True)])
def test_the_newest_whole_one_of_every_era_is_taken(run: runs.Run, manifest: bool, guard: bool) -> None:
    for step in (2, 10, 6):
        write_checkpoint(run.output_dir, step, manifest=manifest, guard=guard)
    assert find_resume_point(run).step == 10
    assert find_resume_point(run).damaged == ()


def test_damaged_ones_are_moved_where_no_release_looks_and_nothing_is_lost(run: runs.Run) -> None:
    write_checkpoint(run.output_dir, 3)
    for _ in range(2):  # the same one may be damaged twice
        cut("optimizer.bin")(write_checkpoint(run.output_dir, 6))
        before = {path.name: path.read_bytes() for path in (run.output_dir / "checkpoint-6").iterdir()}
        (moved,) = set_aside(run, find_resume_point(run).damaged)
        assert {path.name: path.read_bytes() for path in moved.iterdir()} == before
    # What every release's `latest` chooses from.
    assert [path.name for path in run.output_dir.iterdir() if path.name.startswith("checkpoint")] == ["checkpoint-3"]
    assert list(run.checkpoints()) == [3]


def test_a_folder_whose_name_upstream_cannot_sort_is_in_the_way(run: runs.Run) -> None:
    write_checkpoint(run.output_dir, 3)
    (run.output_dir / "checkpoint of monday").mkdir()
    (run.output_dir / "checkpoint-9-tmp").mkdir()  # upstream passes over these
    point = find_resume_point(run)
    assert point.step == 3
    assert [each.folder.name for each in point.damaged] == ["checkpoint of monday"]


def test_without_a_whole_one_the_run_starts_anew(run: runs.Run) -> None:
    assert find_resume_point(run).folder is None
    drop("training_state.json")(write_checkpoint(run.output_dir, 3))
    point = find_resume_point(run)
    assert (point.step, point.folder, len(point.damaged)) == (0, None, 1)


def test_a_datasets_state_that_fluxkit_took_away_does_not_count(run: runs.Run) -> None:
    folder = write_checkpoint(run.output_dir, 3)
    (folder / f"training_state-{BACKEND}.json").unlink()
    assert json.loads((folder / "checkpoint_manifest.json").read_text())["files"]
    assert find_resume_point(run).step == 3
