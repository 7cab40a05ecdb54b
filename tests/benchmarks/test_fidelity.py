"""The comparison with bf16 on the tiny size: a rougher precision is seen to be rougher, and none to be none."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks import fidelity
from benchmarks.fidelity import SIZES, Fidelity, compare, table


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
    monkeypatch.setitem(fidelity.PRECISIONS, "none", (8, lambda _: None))
    monkeypatch.setitem(fidelity.PRECISIONS, "fine", (8, rounded(127)))
    monkeypatch.setitem(fidelity.PRECISIONS, "rough", (4, rounded(7)))
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

    monkeypatch.setitem(fidelity.PRECISIONS, "broken", (4, halve))
    assert not measure("broken").within


@pytest.mark.slow
def test_int8_as_the_guide_has_it_keeps_its_bounds() -> None:
    assert measure("int8-quanto").within
