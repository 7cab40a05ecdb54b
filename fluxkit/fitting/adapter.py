"""How large an adapter of a full-size FLUX.1 is: its trained values, from its settings."""

from collections.abc import Mapping
from typing import Any

# FLUX.1-dev's transformer: 19 double blocks, 38 single ones, width 3072, feed-forward 12288.
_DOUBLE, _SINGLE, _WIDTH, _WIDE = 19, 38, 3072, 12288
_ATTENTION = 8 * _DOUBLE + 3 * _SINGLE  # projections of a double block's Attention, of a picture and of a text; q, k, v
_FEED_FORWARD = 4 * _DOUBLE  # two linears of two FeedForwards
# The guide's LoKr, which the profiles were measured with: 342 modules.
MEASURED_PARAMETERS = 54_705_408
# adamw_bf16 keeps three values a parameter in bfloat16, beside the weight itself (checkpoints of 4.8.0, 2026-11-24).
CHECKPOINT_BYTES = 2 + 3 * 2
# On the GPU a gradient is there too.
TRAINING_BYTES = CHECKPOINT_BYTES + 2


def lokr_parameters(lycoris: Mapping[str, Any]) -> int | None:
    """Values of a LoKr on the default preset's modules.

    Args:
        lycoris: the rendered `lycoris_config.json`.

    Returns:
        None for other algorithms, low-rank factors or other modules: their size was never compared with a real one.
    """
    preset = lycoris.get("apply_preset", {})
    targets = sorted(preset.get("target_module", []))
    if lycoris.get("algo") != "lokr" or not lycoris.get("full_matrix") or targets != ["Attention", "FeedForward"]:
        return None
    if set(preset) - {"target_module", "module_algo_map"}:
        return None
    factors = [
        preset.get("module_algo_map", {}).get(module, {}).get("factor", lycoris.get("factor")) for module in targets
    ]
    if not all(isinstance(factor, int) and factor > 0 and _WIDTH % factor == 0 for factor in factors):
        return None
    attention, feed_forward = factors
    return _ATTENTION * _lokr(attention, _WIDTH) + _FEED_FORWARD * _lokr(feed_forward, _WIDE)


def _lokr(factor: int, out: int) -> int:
    """A square of `factor` and the matrix that it is multiplied with, whole."""
    return factor**2 + (out // factor) * (_WIDTH // factor)


def lora_parameters(rank: int, target: str = "all") -> int | None:
    """Values of a PEFT LoRA on SimpleTuner's default target, all attention projections; None for another target."""
    return _ATTENTION * rank * 2 * _WIDTH if target == "all" else None
