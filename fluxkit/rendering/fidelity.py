"""How exact a profile's quantized base model is, and what is asked of it. `benchmarks/fidelity.py` measures it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxkit.errors import UserError

# The largest block error and the smallest cosine of a profile, set before the full size was measured: with weights of
# 8 bits, and of fewer for cards that hold no more.
BOUNDS = {8: (0.08, 0.99), 4: (0.25, 0.95)}
WHOLE = "no_change"  # base_model_precision of a base model that is not quantized


@dataclass(frozen=True)
class Fidelity:
    """What a precision does to the model, against bf16 on the same inputs, all blocks of random weights.

    Args:
        precision: SimpleTuner's base_model_precision.
        bits: of a weight.
        block_error: the worst block's output, relative to what the block adds to its input.
        gradient_cosine: between the adapter's gradients and bf16's, all together.
        gpu: what it was measured on.
        date: when.
    """

    precision: str
    bits: int
    block_error: float
    gradient_cosine: float
    gpu: str
    date: dt.date

    @property
    def bounds(self) -> tuple[float, float]:
        """The largest block error and the smallest cosine that are asked of so many bits."""
        return bounds_of(self.bits)

    @property
    def within(self) -> bool:
        """Whether it keeps them."""
        return keeps_bounds(self.bits, self.block_error, self.gradient_cosine)


def bounds_of(bits: int) -> tuple[float, float]:
    """The largest block error and the smallest gradient cosine for weights of so many bits."""
    return BOUNDS[8 if bits >= 8 else 4]


def keeps_bounds(bits: int, block_error: float, gradient_cosine: float) -> bool:
    """Whether weights of so many bits are as exact as is asked of them."""
    error, cosine = bounds_of(bits)
    return block_error <= error and gradient_cosine >= cosine


def read_fidelity(profile: str, data: Mapping[str, Any]) -> Fidelity | None:
    """The `[fidelity]` of a profile's file; None where nothing is quantized.

    Raises:
        UserError: the base model is quantized, and how exactly was not measured, or of another precision.
    """
    precision = str(data.get("options", {}).get("base_model_precision", WHOLE))
    if precision == WHOLE:
        return None
    found = data.get("fidelity", {})
    if found.get("precision") != precision:
        raise UserError(
            f'How exact the profile "{profile}" is with {precision} was not measured.',
            fix=f"Measure it on a GPU: `python benchmarks/fidelity.py --precision {precision}`, in the repository.",
        )
    return Fidelity(**{name: found[name] for name in Fidelity.__dataclass_fields__})
