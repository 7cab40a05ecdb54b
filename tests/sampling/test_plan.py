import dataclasses
from typing import Any

import pytest

from fluxkit.errors import UserError
from fluxkit.sampling.plan import Identity, job_key, plan_jobs

IDENTITY = Identity("base", None, "ab" * 32, "int8")


def test_every_prompt_seed_and_strength_once() -> None:
    jobs = plan_jobs({"a": "one", "b": "two"}, (3, 4), (0.5, 1.0), width=64, height=32)
    assert len(set(jobs)) == 8
    assert {(job.prompt_name, job.prompt) for job in jobs} == {("a", "one"), ("b", "two")}
    assert {job.seed for job in jobs} == {3, 4}


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
    job = plan_jobs({"a": "one"}, (3,), width=64, height=64)[0]
    assert job_key(dataclasses.replace(job, **change), IDENTITY) != job_key(job, IDENTITY)
    assert job_key(dataclasses.replace(job, prompt_name="b", strength=1), IDENTITY) == job_key(job, IDENTITY)


@pytest.mark.parametrize(
    "change", [{"base": "x"}, {"revision": "x"}, {"adapter_sha256": None}, {"quantization": "none"}]
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
