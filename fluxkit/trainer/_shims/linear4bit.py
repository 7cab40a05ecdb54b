"""Shim: bitsandbytes' `Linear4bit.forward` returns bf16 under autocast.

Why: it returns its input's dtype, and autocast makes inputs float32 (after norms), so activations take twice the room.
Bound to: the releases of the defect `linear4bit-float32` in releases.toml, for base_model_precision nf4-bnb.
Measured, 2026-11-22, on an H200 capped at 11 GiB: 8.8 GiB at 1024 instead of 10.7, losses finite and in the same
range; it makes the 12 GB profile fit.
"""

import functools
from typing import Any

MODULES = ("bitsandbytes",)


def apply(bitsandbytes: Any) -> None:
    """Wrap `Linear4bit.forward`."""
    import torch

    original = bitsandbytes.nn.Linear4bit.forward

    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        return output.to(torch.bfloat16) if torch.is_autocast_enabled() else output

    bitsandbytes.nn.Linear4bit.forward = forward
