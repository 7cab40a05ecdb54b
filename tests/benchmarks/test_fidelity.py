"""The comparison with bf16 on the tiny size: a rougher precision is seen to be rougher, and none to be none."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import fidelity
from benchmarks.fidelity import SIZES, Fidelity, compare, table
from benchmarks.fidelity_network import Network, make_inputs, run_block
from benchmarks.quantizing import Precision


def rounded(levels: int) -> Callable[[torch.nn.Module], None]:
    """Weights rounded to so many steps of their row's largest."""

    def quantize(block: torch.nn.Module) -> None:
        for module in block.modules():
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.abs().amax(dim=1, keepdim=True) / levels
                module.weight.data = (module.weight / scale).round() * scale

    return quantize


def measure(precision: str) -> Fidelity:
    return compare(replace(SIZES["tiny"], double=1, single=1), precision, "cpu", edge=32, text=4)


def test_fewer_bits_are_further_from_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fidelity.PRECISIONS, "none", Precision(8, lambda _: None))
    monkeypatch.setitem(fidelity.PRECISIONS, "fine", Precision(8, rounded(127)))
    monkeypatch.setitem(fidelity.PRECISIONS, "rough", Precision(4, rounded(7)))
    same, fine, rough = measure("none"), measure("fine"), measure("rough")
    assert (same.block_error, same.forward_error) == (0, 0)
    assert same.gradient_cosine == pytest.approx(1)
    assert 0 < fine.block_error < 0.05 < rough.block_error
    assert fine.gradient_cosine > 0.99 > rough.gradient_cosine
    assert 0 < fine.forward_error < rough.forward_error
    assert fine.within
    lines = table([fine, rough], "CPU").splitlines()
    assert lines[4].startswith("| fine | 0.0")


def test_a_broken_precision_is_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def halve(block: torch.nn.Module) -> None:
        for parameter in block.parameters():
            parameter.data.mul_(0.5)

    monkeypatch.setitem(fidelity.PRECISIONS, "broken", Precision(4, halve))
    assert not measure("broken").within


@pytest.mark.slow
def test_int8_as_the_guide_has_it_keeps_its_bounds() -> None:
    assert measure("int8-quanto").within


def test_results_come_one_by_one_and_make_the_table_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Fidelity("int8-quanto", 8, 0.01, 0.02, 0.999, 0.99, 5.0)
    path = tmp_path / "results"

    def alone(precision: str) -> Fidelity | None:
        for _ in range(200 if precision == "int8-quanto" else 0):  # the last one: the first is kept before it is done
            if path.is_file():
                break
            time.sleep(0.05)
        else:
            assert precision != "int8-quanto"
        return None if precision == "fp8-torchao" else replace(one, precision=precision)

    monkeypatch.setattr(fidelity, "_alone", alone)
    wanted = [f"--precision={name}" for name in ("nf4-bnb", "fp8-torchao", "int8-quanto")]
    flags = ["fidelity.py", "--device=cpu", f"--results={path}", "--json", *wanted]
    monkeypatch.setattr("sys.argv", flags)
    assert fidelity.main() == 0
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["fidelity.py", f"--from={path}"])
    monkeypatch.setattr(fidelity, "_alone", lambda _: pytest.fail("measured again"))
    assert fidelity.main() == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| int8", "| nf4", "| fp8"))]
    assert [row.split()[1] for row in rows] == ["int8-quanto", "nf4-bnb"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # torch's own, as it imports dynamo
def test_compiled_blocks_have_the_same_adapters_and_share_no_output() -> None:
    plain, compiled = (Network(SIZES["tiny"], "cpu", compiled=flag).block(2) for flag in (False, True))
    assert (plain._compiled_call_impl is None, compiled._compiled_call_impl is None) == (True, False)
    pairs = list(zip(plain.parameters(), compiled.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    compiled._compiled_call_impl = None  # compiling on a CPU takes half a minute
    state = torch.randn(1, 16, 64), torch.randn(1, 16, 64)
    text, picture = run_block(Network(SIZES["tiny"], "cpu"), compiled, state, make_inputs(SIZES["tiny"], "cpu", 64, 16))
    assert text.untyped_storage().data_ptr() != picture.untyped_storage().data_ptr()
