"""Trained weights and the base model: every module that the file names finds its layers, or nothing is made.

A file with other names must never load nothing without a word, as LyCORIS does (measured with lycoris-lora 4.1.3): 300
pictures of a stranger would follow.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.sampling.adapter_names import PREFIXES, TEXT_ENCODERS, Finder, layer_finder, split_key
from fluxkit.sampling.deltas import Delta, make_delta
from fluxkit.sampling.plan import AdapterWeight

if TYPE_CHECKING:
    import torch

# Not shown equal to the wrapper they are trained with.
_REFUSED = {
    "dora_scale": "DoRA, whose change depends on the base's own weights,",
    "lora_magnitude_vector": "DoRA, whose change depends on the base's own weights,",
    "oft_": "OFT",
    "lora_mid": "Tucker LoCon",
    "lokr_t": "Tucker LoKr",
    "hada_t": "Tucker LoHa",
    "lora_embedding": "embedding LoRA",
    "diff": "full-difference",
}
_RETRAIN = "Use LoRA, LoKr or LoHa of FLUX.1's transformer, such as fluxkit's own LyCORIS LoKr."
_RIGHT_BASE = "Use the base model that it was trained on (--base, or [model] base)."


def read_adapter(path: Path, shapes: Mapping[str, tuple[int, int]]) -> "dict[str, list[Delta]]":
    """What an adapter's file changes, by layer.

    Args:
        path: a `.safetensors` file: LyCORIS (`lycoris_*`), PEFT (`transformer.*.lora_A.weight`, or PEFT's own form with
            `adapter_config.json` beside it), kohya (`lora_unet_*`) or ComfyUI (`diffusion_model.*`).
        shapes: (out, in) of each of the transformer's linear layers, by dotted path.

    Returns:
        The changes of each layer, in float32 on the CPU; mostly one a layer.

    Raises:
        UserError: the file is missing, damaged, changes nothing, is of a kind that can't be applied, or belongs to
            another model.
    """
    tensors, metadata = _read(path)
    groups = _groups(tensors, path)
    find = layer_finder(shapes)
    _all_found(groups, find, path)
    config = _peft_config(path, metadata)
    if not config and any(name.startswith("base_model.") for name in groups):
        raise UserError(f"{path} says nothing of its scale.", fix="Keep PEFT's adapter_config.json beside it.")
    found: dict[str, list[Delta]] = {}
    for name, parameters in groups.items():
        try:
            alpha = parameters.pop("alpha", None)
            delta = make_delta(parameters, alpha.item() if alpha is not None else _header_alpha(name, config))
            for layer, part in _by_layer(delta, find(name), shapes):
                found.setdefault(layer, []).append(part)
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"The adapter {path} belongs to another model: {name} has {error}.", fix=_RIGHT_BASE
            ) from error
    if not any(_changes(delta) for deltas in found.values() for delta in deltas):
        raise UserError(
            f"The adapter {path} changes nothing: the weights in it are zero.",
            fix="Use a later checkpoint; if all are like this, the training did not train (see `fluxkit runs`).",
        )
    return found


def merge_adapters(transformer: "torch.nn.Module", adapters: Sequence[AdapterWeight], strength: float) -> int:
    """Merge a stack of adapters into the transformer's weights: W + strength · Σ weight · ΔW.

    The sum is made in float32 on the CPU and rounded once to the weights' type, so that the result does not depend
    on the machine.

    Args:
        transformer: FLUX's transformer, not quantized.
        adapters: the stack, each with its share.
        strength: multiplies every share.

    Returns:
        The number of layers changed, over all adapters: all that their files name.

    Raises:
        UserError: as `read_adapter`, before anything is changed.
    """
    import torch

    layers = linear_layers(transformer)
    stack = [(one, read_adapter(one.path, layer_shapes(layers))) for one in adapters]
    with torch.no_grad():
        for name, layer in layers.items():
            shares = [(one.weight * strength, delta) for one, found in stack for delta in found.get(name, ())]
            if shares:
                total = layer.weight.float()
                for share, delta in shares:
                    total = total + share * delta.scale * delta.whole().to(total.device)
                layer.weight.copy_(total)
    return sum(len(found) for _, found in stack)


def merge_adapter(transformer: "torch.nn.Module", path: Path, strength: float) -> int:
    """`merge_adapters` of one adapter at its full share."""
    return merge_adapters(transformer, (AdapterWeight(path),), strength)


def linear_layers(transformer: "torch.nn.Module") -> dict[str, Any]:
    """The transformer's linear layers, quantized ones too, by dotted path."""
    import torch

    return {name: layer for name, layer in transformer.named_modules() if isinstance(layer, torch.nn.Linear)}


def layer_shapes(layers: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(out, in) of each; packed weights (nf4) have other shapes than their layers."""
    return {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}


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
    architecture = metadata.get("modelspec.architecture") or metadata.get("ss_base_model_version") or "flux"
    if "flux" not in architecture.lower():
        raise UserError(f"The adapter {path} belongs to another model: {architecture}.", fix="Use one made for FLUX.1.")
    return tensors, metadata


def _groups(tensors: "dict[str, torch.Tensor]", path: Path) -> "dict[str, dict[str, torch.Tensor]]":
    """The file's tensors by module; each is known, and finite."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(TEXT_ENCODERS):
            raise UserError(
                f"{path} also changes the text encoders ({key}), which fluxkit does not apply.",
                fix="Use an adapter of the transformer alone.",
            )
        if key.startswith(PREFIXES):
            kind = next((kind for mark, kind in _REFUSED.items() if f".{mark}" in key), None)
            if kind:
                raise UserError(f"{path} is a {kind} adapter, which this version can't apply.", fix=_RETRAIN)
        split = split_key(key)
        if split is None:
            raise UserError(f"{path} is no LyCORIS or PEFT adapter for FLUX: it has a tensor {key}.", fix=_RETRAIN)
        if not tensor.isfinite().all():
            raise UserError(
                f"{path} is broken: {key} holds numbers that are not finite.",
                fix="Use an earlier checkpoint; the training diverged.",
            )
        groups.setdefault(split[0], {})[split[1]] = tensor
    return groups


def _all_found(groups: Mapping[str, Any], find: Finder, path: Path) -> None:
    strangers = [name for name in groups if not find(name)]
    if strangers or not groups:
        raise UserError(
            f"The adapter {path} belongs to another model: {len(groups)} modules expected, "
            f"{len(groups) - len(strangers)} matched (not found: {strangers[0] if strangers else 'none at all'}).",
            fix=_RIGHT_BASE,
        )


def _by_layer(delta: Delta, names: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> "list[tuple[str, Delta]]":
    """A module's change, cut where it stands for several of diffusers' layers."""
    expected = (sum(shapes[name][0] for name in names), shapes[names[0]][1])
    if delta.shape != expected:
        raise ValueError(f"the shape {delta.shape}, not {expected}")
    if len(names) == 1:
        return [(names[0], delta)]
    parts, start = [], 0
    for name in names:
        parts.append((name, delta.rows(start, start + shapes[name][0])))
        start += shapes[name][0]
    return parts


def _changes(delta: Delta) -> bool:
    """Whether ΔW is anything but zero: as a product, it is zero with any of its factors."""
    return delta.scale != 0 and all(bool(factor.any()) for factor in delta.factors)


def _peft_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's own settings: in the header (diffusers), or beside the file (PEFT)."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        config = {key.removeprefix("transformer."): value for key, value in config.items()}
        beside = path.with_name("adapter_config.json")
        if not config and path.name == "adapter_model.safetensors" and beside.is_file():
            config = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, AttributeError, OSError):  # a header by another tool: diffusers' rule
        return {}
    if not isinstance(config, dict):
        return {}
    if config.get("use_dora"):
        raise UserError(f"{path} is a DoRA adapter, which this version can't apply.", fix=_RETRAIN)
    return config


def _header_alpha(name: str, config: Mapping[str, Any]) -> float | None:
    """Alpha by PEFT's settings, made such that alpha/rank is the scale; None for the rank (diffusers' rule)."""
    module = name.removeprefix("transformer.").removeprefix("base_model.model.")
    alphas, ranks = config.get("alpha_pattern"), config.get("rank_pattern")
    alpha = alphas.get(module) if isinstance(alphas, dict) else None
    alpha = config.get("lora_alpha") if alpha is None else alpha
    if not isinstance(alpha, int | float):
        return None
    if config.get("use_rslora"):  # alpha / √rank (arXiv:2312.03732)
        rank = ranks.get(module) if isinstance(ranks, dict) else None
        return float(alpha) * math.sqrt(config.get("r", 1) if rank is None else rank)
    return float(alpha)
