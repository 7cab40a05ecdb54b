"""A start that finds everything on disk imports torch and little else: importing was most of the time it took."""

import json
import os
import sys
from pathlib import Path

import pytest

from fluxkit import process
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import AdapterWeight, Quantization, SamplingPlan, plan_jobs

HEAVY = (
    *("transformers", "diffusers", "peft", "torchao", "lycoris", "optimum.quanto", "accelerate", "bitsandbytes"),
    *("torch._dynamo", "torch._inductor", "sympy", "scipy", "huggingface_hub", "sklearn"),
)
SCRIPT = """
import json, sys
from fluxkit.cli import main
try:
    main()
finally:
    print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""
PROJECT = """[project]
name = "p"
trigger = "ohwx"
subject = "man"
[dataset]
path = "dataset"
[model]
base = '{base}'
"""


# bitsandbytes comes with nf4 alone, and brings torch's compiler, which brings sympy.
NEEDED_BY_NF4 = ("bitsandbytes", "torch._dynamo", "torch._inductor", "sympy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantize", "threshold", "needed"), [("fp8", None, ()), ("fp8", 0.4, ()), ("nf4", None, NEEDED_BY_NF4)]
)
def test_a_second_start_imports_no_library_of_models(
    quantize: Quantization,
    threshold: float | None,
    needed: tuple[str, ...],
    tiny_flux: Path,
    lokr_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLUXKIT_CACHE", str(tmp_path / "cache"))
    jobs = plan_jobs({"p": "ohwx man"}, seeds=(1,), adapters=("final",), width=64, height=64, num_inference_steps=2)
    stack = {"final": (AdapterWeight(lokr_file),)}
    plan = SamplingPlan(tiny_flux, None, stack, quantize, jobs, 1, tmp_path / "first", first_block_cache=threshold)
    sample(plan, on_progress=lambda *_: None)
    (tmp_path / "fluxkit.toml").write_text(PROJECT.format(base=tiny_flux))
    command = [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), "sample", "-C", str(tmp_path), "--prompt", "ohwx man"]
    command += ["--adapter", str(lokr_file), "--seeds", "1,", "--size", "64x64", "--num-inference-steps", "2"]
    command += ["--first-block-cache", str(threshold)] if threshold else []
    command += [
        "--quantize",
        quantize,
        "--guidance-scale",
        "3.0",
        "--batch-size",
        "1",
        "--out",
        str(tmp_path / "second"),
    ]
    done = process.run(command, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [name for name in HEAVY if name in needed]
    first, second = (next((tmp_path / name).glob("*.png")).read_bytes() for name in ("first", "second"))
    assert len(second) > 100
    assert _pixels(first) == _pixels(second)


def _pixels(data: bytes) -> bytes:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(data)).tobytes()
