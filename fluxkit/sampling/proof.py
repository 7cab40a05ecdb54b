"""Proof that an adapter does something: one prediction with it and one without, on the model that makes the pictures.

Without it, 300 pictures of a stranger would be the first to tell. It costs two forward passes of 64×64 pixels, once for
each adapter and base, and is remembered in the user's cache folder.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.files import cache_dir, read_json, write_json
from fluxkit.hub import local_file
from fluxkit.sampling.adapters import layer_shapes, linear_layers, read_adapter
from fluxkit.sampling.plan import AdapterWeight, Identity
from fluxkit.sampling.swap import AdapterSwap

if TYPE_CHECKING:
    import torch

_TEXT_TOKENS = 16
_IMAGE_TOKENS = 16  # 64×64 pixels
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_NOISE = 64  # rows: enough that int8's rounding averages out
_FAINT = 1e-3  # |ΔW·x| / |W·x| from where bfloat16 keeps some of it
_THERE = 0.1  # of ΔW·x that is found at least; 1 without rounding


def prove(
    transformer: "torch.nn.Module",
    swap: AdapterSwap | None,
    identity: Identity,
    adapters: Sequence[AdapterWeight],
    strength: float,
) -> float | None:
    """Show that a stack of adapters changes what the model predicts.

    Args:
        transformer: in its place, with the stack merged or put on.
        swap: what put the stack on; None where it is merged.
        identity: of the base and the stack, by which the proof is remembered.
        adapters: the stack.
        strength: at which it is merged or on; it is the same afterwards.

    Returns:
        How far the prediction moves at this strength (merged) or at strength 1: the relative Euclidean distance.
        None where there is nothing to prove: no adapter, or strength 0.

    Raises:
        UserError: the prediction with the stack is the one without, to the bit, or is not finite; or what was merged is
            not in the model.
    """
    if not adapters or not strength:
        return None
    facts = {**asdict(identity), "strength": None if identity.wrapped else strength, "format": 1}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    record = cache_dir() / "proofs" / f"{name}.json"
    with suppress(UserError, KeyError, TypeError, ValueError):
        return float(read_json(record)["effect"])
    if swap is None:
        _check_merged(transformer, identity, adapters, strength)
    effect = _wrapped_effect(transformer, swap, strength) if swap else _merged_effect(transformer, adapters, strength)
    check_effect(effect, adapters, strength)
    write_json(record, {"effect": effect, **facts})
    return effect


def check_effect(effect: float, adapters: Sequence[AdapterWeight], strength: float) -> float | None:
    """`effect`, of a stack that changes something.

    Raises:
        UserError: it is zero, or not finite.
    """
    if not adapters or not strength:
        return None
    files = ", ".join(str(one.path) for one in adapters)
    if effect != effect or effect == float("inf"):
        raise UserError(
            f"With the adapter {files} the model predicts numbers that are not finite.",
            fix="Use an earlier checkpoint: the training diverged. Or a smaller --strength.",
        )
    if effect == 0.0:
        raise UserError(
            f"The adapter {files} changes nothing: strength 0 and strength {strength:g} predict the same.",
            fix="Use a later checkpoint; if all are like this, the training did not train (see `fluxkit runs`).",
        )
    return effect


def _check_merged(
    transformer: "torch.nn.Module", identity: Identity, adapters: Sequence[AdapterWeight], strength: float
) -> None:
    """Hold a few layers that are in use, quantized as they are, against the base's weights in its file.

    What a layer gives for noise, less what the base's weight gives, must point where ΔW does. Merging into weights that
    are quantized already changes nothing and raises nothing (quanto), and a cache may hold another model.
    """
    import torch

    layers = linear_layers(transformer)
    found = [(one.weight * strength, read_adapter(one.path, layer_shapes(layers))) for one in adapters]
    names = sorted({name for _, deltas in found for name in deltas})
    looked = lost = 0
    for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1])):
        layer = layers[name]
        base = _base_weight(identity, f"{name}.weight")
        if base is None:
            return  # not a file in diffusers' usual form: the prediction has to do
        inputs = torch.randn(_NOISE, layer.in_features, generator=torch.Generator("cpu").manual_seed(0)).bfloat16()
        with torch.no_grad():
            given = layer(inputs.to(layer.weight.device)).float().cpu()
        if layer.bias is not None:
            given -= layer.bias.detach().float().cpu()
        inputs, plain = inputs.float(), inputs.float() @ base.float().mT
        change = sum(
            share * delta.scale * delta.apply(inputs, delta.factors)
            for share, deltas in found
            for delta in deltas.get(name, ())
        )
        if change.norm() < _FAINT * plain.norm():
            continue  # lost in rounding anyway
        looked += 1
        lost += bool(((given - plain) * change).sum() < _THERE * change.square().sum())
    if looked and lost == looked:
        raise UserError(
            f"The adapter {adapters[0].path} was merged, and the model does not hold it.",
            fix=f"Delete {cache_dir()}, which may hold another model, and try again.",
        )


def _base_weight(identity: Identity, name: str) -> "torch.Tensor | None":
    """One weight of the base's transformer, read from its file alone."""
    from safetensors import safe_open

    index = local_file(identity.base, f"transformer/{_WEIGHTS}.index.json", identity.revision)
    file = str(read_json(index)["weight_map"].get(name)) if index else _WEIGHTS
    path = local_file(identity.base, f"transformer/{file}", identity.revision)
    if path is None:
        return None
    with safe_open(path, framework="pt", device="cpu") as handle:
        return handle.get_tensor(name).clone() if name in handle.keys() else None  # noqa: SIM118 - no mapping


def _wrapped_effect(transformer: "torch.nn.Module", swap: AdapterSwap, strength: float) -> float:
    swap.strengthen(1.0)
    adapted = _prediction(transformer)
    swap.strengthen(0.0)
    bare = _prediction(transformer)
    swap.strengthen(strength)
    return _distance(adapted, bare)


def _merged_effect(transformer: "torch.nn.Module", adapters: Sequence[AdapterWeight], strength: float) -> float:
    """The other way round: what was merged is taken away beside the weights."""
    adapted = _prediction(transformer)
    swap = AdapterSwap(transformer)
    swap.apply(adapters, -strength)
    bare = _prediction(transformer)
    swap.restore()
    return _distance(adapted, bare)


def _distance(adapted: "torch.Tensor", bare: "torch.Tensor") -> float:
    return float((adapted - bare).norm() / bare.norm().clamp_min(1e-12))


def _prediction(transformer: Any) -> "torch.Tensor":
    """What the model predicts for fixed noise and a made-up prompt; never compiled: another shape compiles anew."""
    import torch

    generator = torch.Generator("cpu").manual_seed(0)
    config, device = transformer.config, next(transformer.parameters()).device

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, torch.bfloat16)

    inputs = {
        "hidden_states": noise(1, _IMAGE_TOKENS, config.in_channels),
        "encoder_hidden_states": noise(1, _TEXT_TOKENS, config.joint_attention_dim),
        "pooled_projections": noise(1, config.pooled_projection_dim),
        "timestep": torch.tensor([0.5], device=device, dtype=torch.bfloat16),
        "guidance": torch.tensor([3.5], device=device) if config.guidance_embeds else None,
        "img_ids": torch.zeros(_IMAGE_TOKENS, 3, device=device, dtype=torch.bfloat16),
        "txt_ids": torch.zeros(_TEXT_TOKENS, 3, device=device, dtype=torch.bfloat16),
    }
    edge = round(_IMAGE_TOKENS**0.5)
    for token in range(_IMAGE_TOKENS):
        inputs["img_ids"][token, 1], inputs["img_ids"][token, 2] = divmod(token, edge)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        result: torch.Tensor = transformer(**inputs, return_dict=False)[0]
    return result.float().cpu()
