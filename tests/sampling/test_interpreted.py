"""The GPU's kernels without a GPU: Triton's interpreter runs them, plain torch operations say what must come out."""

import os
import sys
from pathlib import Path

import pytest

from fluxkit.process import run

KERNELS = Path(__file__).with_name("test_kernels.py")


@pytest.mark.slow
def test_every_kernel_equals_plain_operations_in_tritons_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton has no wheel for this machine")
    # A process of its own: Triton asks for the variable when a kernel is defined.
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-m",
        "slow or not slow",
        "-p",
        "no:cacheprovider",
        KERNELS,
    ]
    done = run(argv, env={**os.environ, "TRITON_INTERPRET": "1"}, cwd=KERNELS.parents[2])
    assert " passed" in done.stdout, done.stdout
    assert "skipped" not in done.stdout, done.stdout
