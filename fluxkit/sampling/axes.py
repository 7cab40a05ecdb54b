"""What images of a folder are compared by: which checkpoint, how strong, which seed."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fluxkit.errors import UserError

Entry = Mapping[str, Any]
Value = tuple[Any, ...]  # what values of one axis are sorted by; unlike for unlike values

_CHECKPOINT = re.compile(r"checkpoint-(\d+)(.*)", re.DOTALL)
AXES = ("checkpoint", "strength", "seed", "prompt", "guidance", "steps")
_FIELDS = {"seed": "seed", "guidance": "guidance_scale", "steps": "num_inference_steps"}


def value_of(axis: str, entry: Entry) -> Value:
    """Where an image stands on an axis: the base alone before checkpoints by their step, these before the final one."""
    if axis == "checkpoint":
        return _checkpoint(adapter_name(entry))
    if axis == "strength":
        return (float(entry["strength"]),)
    if axis == "prompt":
        return (str(entry["prompt_name"]), str(entry["prompt"]))
    return (entry[_FIELDS[axis]],)


def label_of(axis: str, value: Value) -> str:
    """A value in words."""
    if axis == "checkpoint":
        return str(value[-1]) or "base alone"
    if axis == "prompt":
        return str(value[1])
    number = value[0]
    return f"{axis} {number:g}" if isinstance(number, float) else f"{axis} {number}"


def adapter_name(entry: Entry) -> str:
    """The adapter that an image was made with; "" for the base alone. The first version kept its hash alone."""
    name = entry.get("adapter")
    if name is None:
        return f"adapter {str(entry['adapter_sha256'])[:8]}" if entry.get("adapter_sha256") else ""
    return str(name)


def values(axis: str, entries: Iterable[Entry]) -> list[Value]:
    """An axis's values among images, sorted."""
    return sorted({value_of(axis, entry) for entry in entries})


def check_axis(name: str) -> str:
    """The axis of that name, singular or plural.

    Raises:
        UserError: there is none.
    """
    axis = name.strip().lower().removesuffix("s") if name.strip().lower() != "steps" else "steps"
    axis = {"step": "steps", "adapter": "checkpoint", "guidance-scale": "guidance"}.get(axis, axis)
    if axis not in AXES:
        raise UserError(f"Images have no axis {name}.", fix=f"There are: {', '.join(AXES)}.")
    return axis


def _checkpoint(name: str) -> Value:
    if not name:
        return (0, 0, "")
    found = _CHECKPOINT.fullmatch(name)
    return (1, int(found[1]), name) if found else (2, 0, name)
