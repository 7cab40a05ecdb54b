import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxkit.errors import TrainerError
from fluxkit.trainer import runs
from fluxkit.trainer.outputs import check_result, last_saved_step, read_adapter

RECORD = {"rehearsal": False, "base": "b", "revision": None, "release": "4.8.0", "steps": 4, "adapter": "lycoris"}


def lokr(path: Path, modules: int = 3, step: str | None = "4") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for i in range(modules):
        tensors[f"lycoris_block_{i}.lokr_w1"] = np.ones((2, 2), np.float32)
        tensors[f"lycoris_block_{i}.lokr_w2"] = np.ones((2, 2), np.float32)
    save_file(tensors, path, metadata={"global_step": step} if step else None)
    return path


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    return runs.new_run(tmp_path, RECORD)


def test_a_good_run_is_proven(run: runs.Run) -> None:
    lokr(run.final_weights)
    facts = check_result(run, returncode=0, expected_modules=3, seen_step=4)
    assert (facts.modules, facts.kind, facts.step) == (3, "lycoris", 4)


def test_peft_weights_count_by_module(tmp_path: Path) -> None:
    names = ["transformer.a.lora_A.weight", "transformer.a.lora_B.weight", "transformer.b.lora_A.weight"]
    save_file({name: np.ones((2, 2), np.float32) for name in names}, tmp_path / "a.safetensors")
    facts = read_adapter(tmp_path / "a.safetensors")
    assert (facts.modules, facts.kind) == (2, "standard")


def test_exit_code_0_without_weights_is_a_failure(run: runs.Run) -> None:
    with pytest.raises(TrainerError, match="no final weights"):
        check_result(run, returncode=0, expected_modules=3, seen_step=4)


def test_weights_with_a_bad_exit_code_are_a_failure(run: runs.Run) -> None:
    lokr(run.final_weights)
    with pytest.raises(TrainerError, match="exit code 1"):
        check_result(run, returncode=1, expected_modules=3, seen_step=4)


def test_missing_modules_are_a_failure(run: runs.Run) -> None:
    lokr(run.final_weights, modules=2)
    with pytest.raises(TrainerError, match="2 modules where 3"):
        check_result(run, returncode=0, expected_modules=3, seen_step=4)


def test_weights_of_an_earlier_step_are_a_failure(run: runs.Run) -> None:
    lokr(run.final_weights, step="2")
    with pytest.raises(TrainerError, match="of step 2, not 4"):
        check_result(run, returncode=0, expected_modules=None, seen_step=4)


def test_without_metadata_the_checkpoints_prove_the_step(run: runs.Run) -> None:
    lokr(run.final_weights, step=None)
    with pytest.raises(TrainerError, match="of step 0"):
        check_result(run, returncode=0, expected_modules=None, seen_step=None)
    lokr(run.output_dir / "checkpoint-2" / runs.ADAPTER_FILE)
    (run.output_dir / "checkpoint-2" / "training_state.json").write_text(json.dumps({"global_step": 4}))
    assert last_saved_step(run) == 4
    assert check_result(run, returncode=0, expected_modules=None, seen_step=None).modules == 3


def test_a_truncated_adapter_is_a_failure(run: runs.Run) -> None:
    path = lokr(run.final_weights)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TrainerError, match="can't be read"):
        check_result(run, returncode=0, expected_modules=3, seen_step=4)


def test_a_file_without_adapter_weights_is_a_failure(tmp_path: Path) -> None:
    save_file({"weight": np.ones(2, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(TrainerError, match="no adapter weights"):
        read_adapter(tmp_path / "a.safetensors")
