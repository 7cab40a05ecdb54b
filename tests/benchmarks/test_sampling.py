"""benchmarks/sampling.py: what it measures, and that a new process goes on where one before it lost the GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # imports diffusers' pipelines

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sampling.py"


def test_every_variant_is_measured_once() -> None:
    from benchmarks.sampling import VARIANTS

    names = [one.name for one in VARIANTS]
    assert len(set(names)) == len(names)
    assert all(one.expected_s < one.limit_s for one in VARIANTS)


def test_a_variant_that_there_is_not_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    asked = [sys.executable, SCRIPT, "--out", tmp_path / "results", "--variants", "guide,fastest"]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no such variants: fastest; there are rates, " in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_new_process_measures_what_is_left_against_what_was_found(tmp_path: Path) -> None:
    before: list[dict[str, Any]] = [
        {"variant": "rate-bf16", "tflops": 1e-3, "by_shape": {}},
        {"variant": "rate-fp8_one_scale", "tflops": 2e-3, "by_shape": {}},
        {"variant": "guide", "s_image": 5.0},
        {"variant": "device-lost", "tried": ["rates", "guide"]},
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(line) + "\n" for line in before))
    variants = "rates,guide,bf16-diffusers,blocks-fp8,cap-11"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path, "--tiny", "--label", "again", "--variants", variants],
        env={**os.environ, "FLUXKIT_BENCHMARK_TRIED": "rates,guide", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in results.read_text().splitlines()][len(before) :]
    assert [line["variant"] for line in lines if "batch" not in line] == [
        "machine", "encode", "load-blocks-fp8", "blocks-fp8-quality", "cap-11",
    ]  # fmt: skip
    assert {line["label"] for line in lines} == {"again"}
    found = {(line["variant"], line.get("batch")): line for line in lines}
    assert "CUDA" in found["cap-11", None]["failed"]  # which needs a GPU; a failure takes no other variant with it
    line = found["blocks-fp8", 1]
    assert line["pictures"] == 4
    assert line["against_guide"] == pytest.approx(5.0 / line["s_image"])
    assert line["of_limit"] > 0
    assert 40 < found["blocks-fp8-quality", None]["psnr_db"] < 60
    said = [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("#")]
    assert said == ["# encode", "# planned", "# drop-encoders", "# bf16-diffusers", "# blocks-fp8", "# cap-11"]
