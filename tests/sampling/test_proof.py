"""An adapter must change what the model predicts, or nothing is made with it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxkit.errors import UserError
from fluxkit.sampling import proof
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import AdapterWeight, SamplingPlan, plan_jobs

SIZE: dict[str, Any] = {"width": 64, "height": 48, "num_inference_steps": 1, "guidance_scale": 3.0}


def silent(_done: int, _total: int) -> None:
    """No progress."""


def plan_of(base: Path, adapter: Path, out: Path, strengths: tuple[float, ...]) -> SamplingPlan:
    jobs = plan_jobs({"p": "ohwx"}, (1,), strengths, adapters=("final",), **SIZE)
    return SamplingPlan(base, None, {"final": (AdapterWeight(adapter),)}, "int8", jobs, 1, out)


@pytest.mark.parametrize("strengths", [(1.0,), (0.5, 1.0)], ids=["merged", "wrapped"])
def test_a_working_adapter_is_proven_once(
    tiny_flux: Path, lokr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strengths: tuple[float, ...]
) -> None:
    asked = []
    prediction = proof._prediction

    def counted(transformer: Any) -> torch.Tensor:
        asked.append(transformer)
        return prediction(transformer)

    monkeypatch.setattr(proof, "_prediction", counted)
    plan = plan_of(tiny_flux, lokr_file, tmp_path / "a", strengths)
    report = sample(plan, on_progress=silent)
    assert report.made == len(strengths)
    assert 0.001 < report.effects["final"] < 10
    assert len(asked) == 2
    again = sample(dataclasses.replace(plan, out=tmp_path / "b"), on_progress=silent)
    assert again.effects == report.effects
    assert len(asked) == 2, "remembered"


@pytest.mark.parametrize("strengths", [(1.0,), (0.5, 1.0)], ids=["merged", "wrapped"])
def test_an_adapter_whose_effect_is_lost_makes_no_image(
    tiny_flux: Path, lokr_file: Path, tmp_path: Path, strengths: tuple[float, ...]
) -> None:
    """Not zero in the file, but nothing in bfloat16: as lost as with a merge that does not work."""
    tensors = {key: value * 1e-20 if ".lokr_w" in key else value for key, value in load_file(lokr_file).items()}
    save_file(tensors, tmp_path / "faint.safetensors")
    plan = plan_of(tiny_flux, tmp_path / "faint.safetensors", tmp_path / "out", strengths)
    with pytest.raises(UserError, match="changes nothing"):
        sample(plan, on_progress=silent)
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_merge_that_is_lost_is_found(
    tiny_flux: Path, lokr_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when weights are quantized before merging: nothing changes, and nothing is raised."""
    monkeypatch.setattr("fluxkit.sampling.stock.merge_adapters", lambda *_: 30)
    with pytest.raises(UserError, match="does not hold it"):
        sample(plan_of(tiny_flux, lokr_file, tmp_path, (1.0,)), on_progress=silent)
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("fault", "strengths"),
    [("zero", (1.0,)), ("wrong prefixes", (0.5, 1.0)), ("one stranger", (1.0,))],
    ids=["zero", "wrong prefixes", "one stranger"],
)
def test_an_adapter_that_cannot_work_makes_no_image(
    tiny_flux: Path, lokr_file: Path, tmp_path: Path, fault: str, strengths: tuple[float, ...]
) -> None:
    tensors = load_file(lokr_file)
    if fault == "zero":
        tensors = {key: torch.zeros_like(value) if "w2" in key else value for key, value in tensors.items()}
    first = min(tensors).split(".")[0]
    if fault != "zero":
        tensors = {
            key.replace("lycoris_", "lycoris_unet_")
            if fault == "wrong prefixes" or key.startswith(first)
            else key: value
            for key, value in tensors.items()
        }
    save_file(tensors, tmp_path / "bad.safetensors")
    says = {"zero": "changes nothing", "wrong prefixes": "30 modules expected, 0 matched", "one stranger": "29 matched"}
    plan = plan_of(tiny_flux, tmp_path / "bad.safetensors", tmp_path / "out", strengths)
    with pytest.raises(UserError, match=says[fault]):
        sample(plan, on_progress=silent)
    assert not list((tmp_path / "out").glob("*.png"))
