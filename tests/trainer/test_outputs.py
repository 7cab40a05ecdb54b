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


def bfloat16(path: Path, tensors: dict[str, list[float]], step: str = "4") -> None:
    """An adapter as the trainer writes it: bfloat16, which numpy lacks, so its bits are written here."""
    header: dict[str, object] = {"__metadata__": {"global_step": step}}
    data = b""
    for name, values in tensors.items():
        bits = (np.array(values, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(bits)]}
        data += bits
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_a_failure(run: runs.Run, bad: float) -> None:
    bfloat16(run.final_weights, {"lycoris_a.lokr_w1": [1, 2], "lycoris_a.lokr_w2": [1, bad]})
    with pytest.raises(TrainerError, match="not numbers") as caught:
        check_result(run, returncode=0, expected_modules=1, seen_step=4)
    assert "learning_rate" in caught.value.fix


@pytest.mark.parametrize(
    "untouched",
    [
        {"lycoris_a.lokr_w1": [1.0], "lycoris_a.lokr_w2": [0.0], "lycoris_a.alpha": [4.0]},
        {"lycoris_a.lokr_w1": [1.0], "lycoris_a.lokr_w2_a": [1.0], "lycoris_a.lokr_w2_b": [0.0]},
        {"lycoris_a.lokr_w1": [0.0], "lycoris_a.lokr_w2": [1.0]},  # use_scalar
        {"lycoris_a.lora_down.weight": [1.0], "lycoris_a.lora_up.weight": [0.0], "lycoris_a.alpha": [4.0]},
        {"lycoris_a.hada_w1_a": [1.0], "lycoris_a.hada_w1_b": [1.0], "lycoris_a.hada_w2_a": [0.0]},
        {"lycoris_a.diff": [0.0], "lycoris_a.diff_b": [0.0]},
        {"lycoris_a.oft_blocks": [0.0], "lycoris_a.rescale": [1.0]},
        {"transformer.a.lora_A.weight": [1.0], "transformer.a.lora_B.weight": [0.0]},
    ],
)
def test_weights_as_before_the_first_step_are_a_failure(run: runs.Run, untouched: dict[str, list[float]]) -> None:
    bfloat16(run.final_weights, untouched)
    with pytest.raises(TrainerError, match="nothing was learned"):
        check_result(run, returncode=0, expected_modules=1, seen_step=4)
    last = next(name for name, values in untouched.items() if values == [0.0])
    bfloat16(run.final_weights, {**untouched, last: [1e-6]})
    assert check_result(run, returncode=0, expected_modules=1, seen_step=4).unchanged == 0


def test_one_module_that_learned_is_enough_and_the_others_are_counted(run: runs.Run) -> None:
    bfloat16(run.final_weights, {"lycoris_a.lokr_w2": [0.0], "lycoris_b.lokr_w2": [0.5], "lycoris_c.lokr_w2": [0.0]})
    assert check_result(run, returncode=0, expected_modules=3, seen_step=4).unchanged == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lokr", "locon", "loha", "full", "diag-oft", "ia3", "glora"])
def test_what_lycoris_itself_starts_with_counts_as_unchanged(tmp_path: Path, kind: str) -> None:
    """The rule above against LyCORIS: if it ever begins otherwise, this says so."""
    torch = pytest.importorskip("torch")
    lycoris = pytest.importorskip("lycoris")
    from safetensors.torch import save_file as save_torch

    # What other tests asked for is LyCORIS's until somebody asks for something else.
    lycoris.LycorisNetwork.apply_preset({"target_module": ["Sequential"]})
    network = lycoris.create_lycoris(torch.nn.Sequential(torch.nn.Linear(8, 8)), 1.0, linear_dim=4, algo=kind)
    network.apply_to()
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_torch(weights, tmp_path / "a.safetensors")
    facts = read_adapter(tmp_path / "a.safetensors")
    assert (facts.modules, facts.unchanged) == (1, 1), sorted(weights)
