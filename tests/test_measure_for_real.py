"""The benchmark of the profiles around the real SimpleTuner, on the tiny model: every phase is seen, without a GPU."""

import json
from pathlib import Path

import pytest

from tests.real import python

CANDIDATES = """
[class.24gb]
cap_gib = 22.5

[[candidate]]
class = "24gb"
name = "guide"
why = "trains"
settings = "profile"

[[candidate]]
class = "24gb"
name = "broken"
why = "a library that is not there"
options = { base_model_precision = "fp8-transformerengine" }
"""


@pytest.mark.slow
def test_the_real_trainer_is_measured_phase_by_phase_and_a_failure_is_a_result(
    tmp_path: Path, project_root: Path
) -> None:
    (tmp_path / "candidates.toml").write_text(CANDIDATES)
    flags = [
        "--rehearse",
        "--steps",
        "4",
        "--seconds",
        "900",
        "--work",
        tmp_path / "work",
        "--results",
        tmp_path / "results.jsonl",
    ]
    candidates = ("--candidates", tmp_path / "candidates.toml")
    said = python(
        project_root / "benchmarks" / "profiles.py", *flags, *candidates, cwd=project_root, CUDA_VISIBLE_DEVICES=""
    )
    good, bad = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (good["name"], good["ok"], good["batch_size"]) == ("guide", True, 1)
    assert good["seconds_per_step"]["64"] > 0
    assert 0 < good["anonymous_gib"] < good["host_gib"]
    assert (bad["ok"], bad["ended_in"]) == (False, "load")
    assert "TransformerEngine" in bad["reason"]
    records = (tmp_path / "work" / "runs" / "24gb" / "guide" / "measured.jsonl").read_text().splitlines()
    phases = {json.loads(line)["phase"] for line in records}
    assert {
        "text_encoding", "vae_caching", "load", "training_step", "validation_image", "checkpoint",
    } <= phases  # fmt: skip
    assert not list((tmp_path / "work" / "project").glob("runs/*"))
    assert "| broken | no (load)" in said
