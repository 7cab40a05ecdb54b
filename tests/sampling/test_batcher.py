"""The whole batcher, with the tiny model: what lands in the folder, and what a second run does."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.errors import GpuMemoryError, InterruptedByUser, UserError
from fluxkit.files import sha256_file
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.ledger import open_ledger
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import AdapterWeight, SamplingPlan, plan_jobs

HOSTILE = 'ohwx "quoted" {{ 7 * 7 }}, {% raw %} <script>alert(1)</script>\nSteps: 99, 😀 \\ & é'
SIZE: dict[str, Any] = {"width": 64, "height": 48, "num_inference_steps": 2, "guidance_scale": 3.0}


def silent(_done: int, _total: int) -> None:
    """No progress."""


@pytest.fixture
def plan(tiny_flux: Path, lokr_file: Path, tmp_path: Path) -> SamplingPlan:
    jobs = plan_jobs({"plain": "ohwx man", "hostile": HOSTILE}, seeds=(1, 2), adapters=("final",), **SIZE)
    return SamplingPlan(tiny_flux, None, {"final": (AdapterWeight(lokr_file),)}, "int8", jobs, 4, tmp_path / "samples")


def pictures(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("*.png")}


def test_images_do_not_depend_on_the_batch_size(plan: SamplingPlan, tmp_path: Path) -> None:
    report = sample(plan, on_progress=silent)
    assert (report.made, report.skipped, report.modules) == (4, 0, 30)
    sample(dataclasses.replace(plan, batch_size=1, out=tmp_path / "one"), on_progress=silent)
    assert pictures(tmp_path / "one") == pictures(plan.out)
    assert len(set(pictures(plan.out).values())) == 4


def test_the_adapter_its_strength_and_the_quantization_matter(plan: SamplingPlan, tmp_path: Path) -> None:
    jobs = plan_jobs({"p": "ohwx"}, seeds=(1,), strengths=(0.0, 1.0), adapters=("final",), **SIZE)
    sample(dataclasses.replace(plan, jobs=jobs, quantize="none"), on_progress=silent)
    sample(dataclasses.replace(plan, jobs=jobs[1:], quantize="int8", out=tmp_path / "q"), on_progress=silent)
    bare = dataclasses.replace(
        plan, adapters={}, jobs=plan_jobs({"p": "ohwx"}, seeds=(1,), **SIZE), quantize="none", out=tmp_path / "bare"
    )
    assert sample(bare, on_progress=silent).modules == 0

    def pixels(folder: Path) -> dict[float, bytes]:
        images = json.loads((folder / "manifest.json").read_text())["images"].values()
        return {one["strength"]: Image.open(folder / one["file"]).tobytes() for one in images}

    adapted = pixels(plan.out)
    assert adapted[0.0] == pixels(tmp_path / "bare")[0.0], "strength 0 is the base model"
    assert len({adapted[0.0], adapted[1.0], pixels(tmp_path / "q")[1.0]}) == 3


def test_every_picture_says_how_it_was_made(plan: SamplingPlan) -> None:
    sample(plan, on_progress=silent)
    ((adapter,),) = plan.adapters.values()
    found = {}
    for path in plan.out.glob("*.png"):
        with Image.open(path) as image:
            assert image.size == (64, 48)
            chunks = dict(image.text)
        assert "prompt" not in chunks
        facts = json.loads(chunks["fluxkit"])
        prompt, _, line = chunks["parameters"].rpartition("\n")
        assert prompt == facts["prompt"]
        assert f"Seed: {facts['seed']}, Size: 64x48" in line
        assert (facts["num_inference_steps"], facts["guidance_scale"], facts["quantization"]) == (2, 3.0, "int8")
        assert (facts["strength"], facts["adapter"]) == (1.0, "final")
        assert facts["adapters"] == [{"sha256": sha256_file(adapter.path), "weight": 1.0}]
        found[facts["prompt_name"], facts["seed"]] = facts["prompt"]
    assert found == {(job.prompt_name, job.seed): job.prompt for job in plan.jobs}


def test_a_second_run_makes_only_what_is_missing(plan: SamplingPlan) -> None:
    sample(plan, on_progress=silent)
    before = pictures(plan.out)
    assert (report := sample(plan, on_progress=silent)).made == 0
    assert report.skipped == 4
    lost = sorted(plan.out.glob("*.png"))[0]
    lost.unlink()
    seen: list[tuple[int, int]] = []
    assert sample(plan, on_progress=lambda done, total: seen.append((done, total))).made == 1
    assert seen == [(1, 1)]
    assert pictures(plan.out) == before


@pytest.mark.parametrize("kept", [0, 200], ids=["empty", "truncated"])
def test_a_damaged_picture_is_made_again(plan: SamplingPlan, kept: int) -> None:
    sample(plan, on_progress=silent)
    before = pictures(plan.out)
    damaged = sorted(plan.out.glob("*.png"))[0]
    damaged.write_bytes(damaged.read_bytes()[:kept])
    assert sample(plan, on_progress=silent).made == 1
    assert pictures(plan.out) == before


def test_ctrl_c_keeps_what_was_made(plan: SamplingPlan) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedByUser, match=r"[234] of 4") as caught:
        sample(plan, on_progress=interrupt)
    # Those that were being written in the background are kept too.
    made = len(pictures(plan.out))
    assert f"{made} of 4" in caught.value.message
    assert (plan.out / "index.html").is_file()
    report = sample(plan, on_progress=silent)
    assert (report.made, report.skipped) == (4 - made, made)


def test_a_second_run_beside_the_first_is_refused(plan: SamplingPlan) -> None:
    with open_ledger(plan.out), pytest.raises(UserError, match="right now"):
        sample(plan, on_progress=silent)


def test_out_of_memory_halves_the_batch_then_gives_up(plan: SamplingPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    denoise = FluxSampler._denoise

    def limited(self: FluxSampler, batch: Any) -> Any:
        tried.append(len(batch))
        return denoise(self, batch) if len(batch) <= limit else None

    monkeypatch.setattr(FluxSampler, "_denoise", limited)
    limit = 1
    assert sample(plan, on_progress=silent).made == 4
    assert tried == [4, 2, 1, 1, 1, 1]
    limit = 0
    with pytest.raises(GpuMemoryError, match="64×48"):
        sample(dataclasses.replace(plan, out=plan.out / "again"), on_progress=silent)


def test_a_damaged_manifest_is_named(plan: SamplingPlan) -> None:
    plan.out.mkdir()
    (plan.out / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json"):
        sample(plan, on_progress=silent)


def test_a_base_model_that_is_none(plan: SamplingPlan, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="can't be loaded"):
        sample(dataclasses.replace(plan, base=tmp_path / "empty"), on_progress=silent)


def test_quantizations_of_later_versions_are_refused(plan: SamplingPlan) -> None:
    with pytest.raises(UserError, match="int2 is not in this version"):
        sample(dataclasses.replace(plan, quantize="int2"), on_progress=silent)  # type: ignore[arg-type]
