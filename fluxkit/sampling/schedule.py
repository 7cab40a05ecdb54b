"""Which steps a picture takes: FLUX's flow-matching schedule, as diffusers' scheduler and pipeline count it.

Rectified flow with shifted steps (arXiv:2403.03206); the sums keep diffusers' order and types, so the numbers are equal
to the bit (tested). Settings that no FLUX.1 has go to diffusers' own scheduler.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_PLAIN: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "invert_sigmas": False,
    "shift_terminal": None, "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
    "time_shift_type": "exponential", "stochastic_sampling": False, "use_flow_sigmas": False,
}  # fmt: skip


def sigmas(config: Mapping[str, Any], width: int, height: int, steps: int) -> "np.ndarray[Any, Any]":
    """Shares of noise, from 1 down to 0: (steps + 1,) in float32. A step's time is its share times 1000.

    Args:
        config: the scheduler's `scheduler_config.json`.
        width: of the picture, in pixels; with the height it shifts the steps.
        height: of the picture, in pixels.
        steps: denoising steps.

    Raises:
        ValueError: a scheduler that can't make FLUX's steps.
    """
    import numpy as np

    shift = _shift(config, (height // 16) * (width // 16))
    if any(config.get(key, value) != value for key, value in _PLAIN.items()):
        return _by_diffusers(config, shift, steps)
    given = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
    if config.get("use_dynamic_shifting", False):
        shifted = math.exp(shift) / (math.exp(shift) + (1 / given - 1) ** 1.0)
    else:
        plain = config.get("shift", 1.0)
        shifted = plain * given / (1 + (plain - 1) * given)
    return np.append(shifted.astype(np.float32), np.float32(0.0))


def _shift(config: Mapping[str, Any], tokens: int) -> float:
    """By the picture's tokens, on a line through two points."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - base) / (high - low)
    return float(tokens * slope + (base - slope * low))


def _by_diffusers(config: Mapping[str, Any], shift: float, steps: int) -> "np.ndarray[Any, Any]":
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    if config.get("_class_name", _PLAIN["_class_name"]) != _PLAIN["_class_name"] or config.get("stochastic_sampling"):
        raise ValueError(f"its scheduler {config.get('_class_name')} is none that fluxkit can make FLUX's steps with")
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
    given = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(steps if given is None else None, sigmas=given, mu=shift)
    found: np.ndarray[Any, Any] = scheduler.sigmas.numpy()
    if scheduler.config.num_train_timesteps != 1000 or scheduler.config.invert_sigmas:
        raise ValueError("its scheduler counts time in another way than FLUX.1")
    return found
