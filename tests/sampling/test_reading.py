"""Tensors come out of a file as safetensors wrote them, and out of a damaged one not at all."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fluxkit.sampling import reading
from fluxkit.sampling.reading import Ahead, open_tensors, read_tensors


@pytest.fixture
def tensors() -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(7, 33, generator=generator)
    return {
        "wide": numbers,
        "half": numbers.to(torch.bfloat16),
        "eight": numbers.to(torch.float8_e4m3fn),
        "whole": (numbers * 40).to(torch.int8),
        "packed": (numbers.abs() * 40).to(torch.uint8),
        "one": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
    }


@pytest.fixture
def file(tensors: dict[str, Any], tmp_path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "x.safetensors", metadata={"key": "value"})
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("chunk", [5, 64, 2**20])
@pytest.mark.parametrize("threads", [1, 8])
def test_every_type_comes_back_to_the_bit(
    tensors: dict[str, Any], file: Path, chunk: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(reading, "_CHUNK", chunk)
    opened = open_tensors(file)
    assert opened.metadata == {"key": "value"}
    found = read_tensors(opened, lambda _name: "cpu", threads)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8))
        assert found[name].data_ptr() % 16 == 0, "torch's int8 kernels crashed on less"


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_truncated_file_is_no_file(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.safetensors|JSON|Expecting|Unterminated|control|delimiter"):
        open_tensors(file)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},  # half of it
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},  # a gap
        {"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 3},
    ],
)
def test_a_header_that_lies_is_refused(header: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ValueError, match="x has"):
        open_tensors(tmp_path / "x")


def test_a_file_that_shrinks_while_it_is_read_is_an_error(file: Path) -> None:
    opened = open_tensors(file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(OSError, match="ended early"):
        read_tensors(opened, lambda _name: "cpu")


def test_reading_ahead_harms_nothing(file: Path, tmp_path: Path) -> None:
    ahead = Ahead([file, tmp_path / "gone", tmp_path])
    ahead.stop()
    assert not any(thread.is_alive() for thread in ahead._threads)
