import dataclasses
from typing import Any

import pytest

from fluxkit.errors import UserError
from fluxkit.sampling.plan import AdapterContent, Identity, job_key, plan_jobs

IDENTITY = Identity("base", None, (AdapterContent("ab" * 32),), "int8")


def test_every_prompt_seed_and_strength_once() -> None:
    jobs = plan_jobs({"a": "one", "b": "two"}, (3, 4), (0.5, 1.0), adapters=("", "final"), width=64, height=32)
    assert len(set(jobs)) == 12, "the base model alone has no strength"
    assert {(job.adapter, job.strength) for job in jobs} == {("", 0.0), ("final", 0.5), ("final", 1.0)}
    assert {(job.prompt_name, job.prompt) for job in jobs} == {("a", "one"), ("b", "two")}
    assert {job.seed for job in jobs} == {3, 4}


def test_steps_and_guidance_are_axes_too() -> None:
    jobs = plan_jobs({"a": "one"}, (3,), num_inference_steps=(10, 20), guidance_scale=(2.5, 3.0, 3.5))
    assert {(job.num_inference_steps, job.guidance_scale) for job in jobs} == {
        (steps, scale) for steps in (10, 20) for scale in (2.5, 3.0, 3.5)
    }


def test_folders_of_the_first_version_stay_valid() -> None:
    job = plan_jobs({"a": "one"}, (3,), adapters=("final",))[0]
    assert job_key(job, IDENTITY) == "86f902bbe98a5d14383cda86f8ad1a77ec005b9bb74e190852e3aec89e2df738"


def test_another_threshold_of_the_first_block_cache_is_another_image() -> None:
    job = plan_jobs({"a": "one"}, (3,))[0]
    keys = {job_key(job, dataclasses.replace(IDENTITY, first_block_cache=one)) for one in (None, 0.08, 0.1)}
    assert len(keys) == 3
    assert job_key(job, IDENTITY) in keys


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "x"},
        {"seed": 9},
        {"width": 32},
        {"num_inference_steps": 9},
        {"guidance_scale": 4.0},
        {"strength": 0.5},
    ],
)
def test_a_job_that_differs_has_another_key(change: dict[str, Any]) -> None:
    job = plan_jobs({"a": "one"}, (3,), adapters=("final",), width=64, height=64)[0]
    assert job_key(dataclasses.replace(job, **change), IDENTITY) != job_key(job, IDENTITY)
    assert job_key(dataclasses.replace(job, prompt_name="b", adapter="b", strength=1), IDENTITY) == job_key(
        job, IDENTITY
    )


@pytest.mark.parametrize(
    "change",
    [
        {"base": "x"},
        {"revision": "x"},
        {"adapters": ()},
        {"adapters": (AdapterContent("ab" * 32, 0.5),)},
        {"adapters": (AdapterContent("ab" * 32), AdapterContent("cd" * 32))},
        {"quantization": "none"},
        {"wrapped": True},
    ],
)
def test_another_model_has_another_key(change: dict[str, Any]) -> None:
    job = plan_jobs({"a": "one"}, (3,))[0]
    assert job_key(job, dataclasses.replace(IDENTITY, **change)) != job_key(job, IDENTITY)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 1000}, "multiple of 16"),
        ({"height": 0}, "multiple of 16"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"seeds": (-1,)}, "no seed"),
        ({"guidance_scale": float("nan")}, "nan"),
        ({"prompts": {"a": "\udcff"}}, "UTF-8"),
    ],
)
def test_values_without_an_image_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan_jobs(**{"prompts": {"a": "one"}, "seeds": (1,), **change})
