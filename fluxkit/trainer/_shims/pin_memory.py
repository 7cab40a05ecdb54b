"""Shim: `Tensor.pin_memory()` gives the tensor itself where there is no GPU. Rehearsals only.

Why: SimpleTuner pins each batch whether or not there is a GPU (`helpers/training/collate.py`); without CUDA, torch
raises at step 0.
Bound to: the releases of the defect `pin-memory` in releases.toml.
Measured, 2026-11-22, SimpleTuner 4.8.0: with it, 4 LoKr steps on the tiny FLUX end with exit code 0; it was the one
obstacle on a CPU.
"""

from typing import Any

MODULES = ("torch",)


def apply(torch: Any) -> None:
    """Patch torch, unless it sees a GPU."""
    if not torch.cuda.is_available():
        torch.Tensor.pin_memory = lambda tensor, *_, **__: tensor
