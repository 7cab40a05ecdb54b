"""A shim against the library that the release is locked with: fails when it is no longer needed."""

import sys
from pathlib import Path

import pytest

from fluxkit.process import run
from fluxkit.trainer.shims import write_shims
from tests.compiled import compile_with
from tests.real import fluxkit


@pytest.mark.slow
@pytest.mark.parametrize(("names", "says"), [
    (("regional_compile",), "fluxkit: 3 blocks are compiled 3 3 True"), ((), "0 3 False"),
])  # fmt: skip
def test_accelerate_compiles_blocks_that_nobody_runs(tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    toml = '[project]\nname = "p"\ntrigger = "fxkdemo"\n[simpletuner]\nversion = "4.8.0"\nplatform = "cpu"\n'
    (tmp_path / "fluxkit.toml").write_text(toml)
    environment = fluxkit("install", "-C", tmp_path).strip().splitlines()[-1]
    assert compile_with(f"{environment}/bin/python", tmp_path, names) == says


# Autocast as on a GPU: `is_autocast_enabled()` without a device asks for CUDA's.
FOUR_BITS = """
import torch, bitsandbytes
torch.is_autocast_enabled = lambda *device: True
layer = bitsandbytes.nn.Linear4bit(64, 64, compute_dtype=torch.bfloat16, quant_type="nf4").to("cpu")
with torch.autocast("cpu", dtype=torch.bfloat16):
    print(layer(torch.zeros(2, 64)).dtype, layer(torch.zeros(2, 64, dtype=torch.bfloat16)).dtype)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("names", "dtypes"), [
    (("linear4bit",), "torch.bfloat16 torch.bfloat16"), ((), "torch.float32 torch.bfloat16"),
])  # fmt: skip
def test_bitsandbytes_gives_back_what_autocast_made_float32(
    tmp_path: Path, names: tuple[str, ...], dtypes: str
) -> None:
    """fluxkit's own bitsandbytes, which is no older than the locked one: the trainer's lock without CUDA has none."""
    done = run([sys.executable, "-c", FOUR_BITS], env=write_shims(tmp_path / "shims", names))
    assert done.stdout.strip().endswith(dtypes), done.stderr[-2000:]
