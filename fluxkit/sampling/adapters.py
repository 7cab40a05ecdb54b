"""Trained weights into the base model: W + strength · ΔW, in every module that the file names, or not at all.

LyCORIS's own `merge_to` is not used: it applies alpha/rank twice for low-rank LoKr, ignores the strength given at
loading, and a file with other names merges nothing without a word (measured with lycoris-lora 4.1.3).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError

if TYPE_CHECKING:
    import torch

_LYCORIS = "lycoris_"
_PEFT = "transformer."
# Refused until shown equal to the wrapper they were trained with.
_REFUSED = {
    "hada_": "LoHa",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    "lora_mid": "Tucker LoCon",
    "lokr_t": "Tucker LoKr",
    "use_rslora": "rsLoRA",
}
_RETRAIN = "Train with fluxkit's defaults (LyCORIS LoKr) or with PEFT LoRA; both can be merged."


def merge_adapter(transformer: "torch.nn.Module", path: Path, strength: float) -> int:
    """Merge an adapter into the transformer's weights.

    The sum is made in float32 on the CPU and rounded once to the weights' type, so that the result does not depend
    on the machine.

    Args:
        transformer: FLUX's transformer, not quantized.
        path: `pytorch_lora_weights.safetensors`, LyCORIS (`lycoris_*`) or PEFT (`transformer.*.lora_A.weight`).
        strength: multiplies ΔW.

    Returns:
        The number of modules merged: all that the file has, more than 0.

    Raises:
        UserError: the file is missing, damaged, of a kind that can't be merged, or of another model. The
            transformer is then not changed, or not usable: throw it away.
    """
    import torch

    tensors, metadata = _read(path)
    groups, targets = _match(transformer, tensors, path)
    delta = _lycoris_delta if next(iter(tensors)).startswith(_LYCORIS) else _peft_delta
    with torch.no_grad():
        for name, group in groups.items():
            weight = targets[name].weight
            with _another_model(path, name, tuple(weight.shape)):
                change = delta(name, group, targets[name], metadata).float()
                if change.shape != weight.shape:
                    raise ValueError(f"shape {tuple(change.shape)}")
            if not torch.isfinite(change).all():
                raise UserError(
                    f"{path} is broken: {name} holds numbers that are not finite.",
                    fix="Use an earlier checkpoint; the training diverged.",
                )
            weight.copy_(weight.float() + strength * change)
    return len(groups)


def _read(path: Path) -> tuple[dict[str, "torch.Tensor"], dict[str, str]]:
    """Tensors by key, in float32, and the header's metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            # `.float()` of float32 makes no copy; safetensors' tensors are 8-byte aligned, and kernels crashed on that.
            tensors = {key: handle.get_tensor(key).float().clone() for key in sorted(handle.keys())}
            metadata = handle.metadata() or {}
    except FileNotFoundError as error:
        raise UserError(f"There is no adapter {path}.", fix="Check the path, or run `fluxkit runs`.") from error
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The adapter {path} is damaged: {error}",
            fix="Copy it again, or use another checkpoint (`fluxkit sample --checkpoint N`).",
        ) from error
    for key in tensors:
        for mark, kind in _REFUSED.items():
            if f".{mark}" in key:
                raise UserError(f"{path} is a {kind} adapter, which this version can't merge.", fix=_RETRAIN)
    return tensors, metadata


def _match(
    transformer: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], path: Path
) -> tuple[dict[str, dict[str, "torch.Tensor"]], dict[str, Any]]:
    """The file's tensors by module and the model's linear layers of those names; every one, or an error."""
    import torch

    first = next(iter(tensors), "")
    lycoris = first.startswith(_LYCORIS)
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, parameter = key.partition(".") if lycoris else key.removeprefix(_PEFT).rpartition(".")
        if not lycoris and name.endswith((".lora_A", ".lora_B")):
            name, _, parameter = name.rpartition(".")
        known = key.startswith(_LYCORIS if lycoris else _PEFT) and (
            parameter == "alpha" or parameter.startswith(("lokr_w", "lora_up", "lora_down") if lycoris else "lora_")
        )
        if not known:
            raise UserError(f"{path} is no LyCORIS or PEFT adapter for FLUX: it has a tensor {key}.", fix=_RETRAIN)
        groups.setdefault(name, {})[parameter] = tensor
    layers = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, torch.nn.Linear)}
    if lycoris:
        layers = {_LYCORIS + name.replace(".", "_"): layer for name, layer in layers.items()}
    matched = {name: layers[name] for name in groups if name in layers}
    if not groups or len(matched) < len(groups):
        stranger = next((name for name in groups if name not in matched), "none at all")
        raise UserError(
            f"The adapter {path} belongs to another model: {len(groups)} modules expected, "
            f"{len(matched)} matched (not found: {stranger}).",
            fix="Use the base model that it was trained on.",
        )
    return groups, matched


def _lycoris_delta(name: str, group: dict[str, "torch.Tensor"], layer: Any, _metadata: dict[str, str]) -> Any:
    """ΔW of a LoKr or LoCon module, from the module's own code."""
    from lycoris.modules import get_module, make_module

    state = {f"{name}.{parameter}": tensor for parameter, tensor in group.items()}
    kind, parameters = get_module(state, name)
    module = make_module(kind, parameters, name, layer) if kind else None
    if module is None:
        raise ValueError(f"parameters {sorted(group)}")
    module.float().eval()
    if kind.__name__ == "LokrModule":
        return module.get_weight(layer.weight.shape)  # scaled by alpha/rank; get_diff_weight would scale it again
    return module.get_diff_weight(1.0, layer.weight.shape)[0]


def _peft_delta(name: str, group: dict[str, "torch.Tensor"], _layer: Any, metadata: dict[str, str]) -> Any:
    """B @ A · alpha / rank; alpha is the file's, else the one in the header, else the rank (diffusers' rule)."""
    down, up = group["lora_A"], group["lora_B"]
    rank = down.shape[0]
    alpha = group["alpha"].item() if "alpha" in group else _header_alpha(name, rank, metadata)
    return (up @ down) * (alpha / rank)


def _header_alpha(name: str, rank: int, metadata: dict[str, str]) -> float:
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        if config.get("transformer.use_rslora") or config.get("transformer.use_dora"):
            raise UserError("The adapter is rsLoRA or DoRA, which this version can't merge.", fix=_RETRAIN)
        patterns = config.get("transformer.alpha_pattern") or {}
        return float(patterns.get(name, config.get("transformer.lora_alpha", rank)))
    except (ValueError, AttributeError, TypeError):  # a header by another tool: diffusers' rule
        return float(rank)


@contextmanager
def _another_model(path: Path, name: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Errors about shapes mean that the adapter was trained on a model of other sizes."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"The adapter {path} belongs to another model: {name} does not fit a weight of {shape} ({error}).",
            fix="Use the base model that it was trained on.",
        ) from error
