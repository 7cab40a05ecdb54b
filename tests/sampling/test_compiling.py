"""When compiling pays, and what is remembered of it."""

import math
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.hardware import Gpu
from fluxkit.sampling import quantizers
from fluxkit.sampling.compiling import Timing, Timings, break_even
from fluxkit.sampling.quantizers import Path as Way
from fluxkit.sampling.quantizers import fastest, quantizer


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLUXKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("FLUXKIT_COMPILE", raising=False)
    return tmp_path / "sampling" / "timings.json"


def test_few_pictures_are_not_worth_compiling() -> None:
    timings = Timings(gpu="H100", kind="fp8", batch=1)
    assert timings.decide(1000) == (False, "not measured on this machine yet (FLUXKIT_COMPILE=on tries it)")
    timings.put("eager", Timing(2.6, 2.0))
    timings.put("compiled", Timing(2.2, 15.0))
    assert break_even(Timing(2.6, 2.0), Timing(2.2, 15.0)) == pytest.approx(32.5)
    assert Timings(gpu="H100", kind="fp8", batch=1).decide(32)[0] is False
    assert Timings(gpu="H100", kind="fp8", batch=1).decide(33) == (
        True,
        "it pays from 33 pictures on, and there are 33",
    )
    assert Timings(gpu="H100", kind="fp8", batch=2).decide(33)[0] is False, "another batch was never measured"


def test_compiling_that_gains_nothing_is_left_alone() -> None:
    timings = Timings(gpu="old")
    timings.put("eager", Timing(2.0, 1.0))
    timings.put("compiled", Timing(2.0, 15.0))
    assert timings.decide(10**6) == (False, "it is no faster on this machine")
    assert math.isinf(break_even(Timing(2.0, 1.0), Timing(2.1, 15.0)))


def test_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for choice in ("on", "off"):
        monkeypatch.setenv("FLUXKIT_COMPILE", choice)
        assert Timings(gpu="x").decide(1)[0] == (choice == "on")
    monkeypatch.setenv("FLUXKIT_COMPILE", "maybe")
    with pytest.raises(UserError, match="none of auto, on and off"):
        Timings(gpu="x").decide(1)


def test_a_damaged_file_is_as_none(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("{")
    timings = Timings(gpu="x")
    assert timings.get("eager") is None
    timings.put("eager", Timing(1.0, 0.5))
    assert timings.get("eager") == Timing(1.0, 0.5)


def with_gpu(monkeypatch: pytest.MonkeyPatch, *capability: int) -> None:
    found = [Gpu("a card", 2**34, 2**34, "580", capability=(capability[0], capability[1]))] if capability else []
    monkeypatch.setattr(quantizers, "gpus", lambda **_: found)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "fp8"), ((12, 0), "fp8"), ((8, 9), "fp8"), ((8, 6), "int8-dynamic"), ((7, 5), "int8"), ((), "int8")],
)
def test_auto_takes_the_fastest_that_the_gpu_does(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, ...], expected: str
) -> None:
    with_gpu(monkeypatch, *capability)
    assert fastest(compared=False) == expected
    assert fastest(compared=True) == "int8"


def test_a_path_beyond_the_bound_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, 9, 0)
    for psnr, error in ((30.0, 0.01), (50.0, 0.2)):
        ugly = Way("fp8", (8, 9), 99.0, psnr, error)
        assert fastest(compared=False, paths=(ugly, *quantizers.PATHS[1:])) == "int8-dynamic"


def test_fp8_on_an_older_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, 8, 6)
    with pytest.raises(UserError, match="can't multiply in fp8"):
        quantizer("fp8")
