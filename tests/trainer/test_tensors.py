from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxkit.trainer import tensors
from fluxkit.trainer.tensors import scan_tensors

VALUES = {
    "ordinary": [0.0, 1.5, -2.0], "zero": [0.0, -0.0, 0.0], "nan": [1.0, float("nan"), 0.0],
    "infinite": [1.0, float("-inf"), 0.0],
}  # fmt: skip
SEEN = {"ordinary": (True, False), "zero": (True, True), "nan": (False, False), "infinite": (False, False)}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_dtypes_that_numpy_has(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a.safetensors"
    save_file({name: np.array(values, dtype) for name, values in VALUES.items()}, path)
    assert {each.name: (each.finite, each.zero) for each in scan_tensors(path)} == SEEN


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_the_dtypes_that_numpy_lacks(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    values = {k: v for k, v in VALUES.items() if name != "float8_e4m3fn" or k != "infinite"}  # it has no infinity
    path = tmp_path / "a.safetensors"
    save_torch({key: torch.tensor(value).to(getattr(torch, name)) for key, value in values.items()}, path)
    assert {each.name: (each.finite, each.zero) for each in scan_tensors(path)} == {k: SEEN[k] for k in values}


def test_whole_numbers_and_empty_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"steps": np.array([0, 255], np.uint8), "none": np.zeros((0, 4), np.float32)}, path)
    assert {each.name: (each.finite, each.zero) for each in scan_tensors(path)} == {
        "steps": (True, False), "none": (True, False),
    }  # fmt: skip


def test_a_value_in_the_last_piece_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "_PIECE", 64)
    values = np.zeros(1000, np.float32)
    values[-1] = np.nan
    path = tmp_path / "a.safetensors"
    save_file({"a": values}, path)
    (facts,) = scan_tensors(path)
    assert (facts.finite, facts.zero) == (False, False)
