"""The base transformer's weights one tensor at a time, with adapters merged in: never 24 GB at once.

The sums are `merge_adapters`' own, so what comes out is equal to the bit.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.files import read_json
from fluxkit.hub import snapshot
from fluxkit.sampling.adapters import read_adapter
from fluxkit.sampling.deltas import Delta, Kronecker
from fluxkit.sampling.plan import AdapterWeight

if TYPE_CHECKING:
    import torch

_INDEX = "diffusion_pytorch_model.safetensors.index.json"
_SINGLE = "diffusion_pytorch_model.safetensors"


class BaseWeights:
    """A source for `FastFlux`: a tensor by its name in diffusers.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
        adapters: a stack, each with its share.
        strength: multiplies every share.
        device: where the tensors go.

    Raises:
        UserError: the base has no such files, or an adapter is damaged or of another model.
    """

    def __init__(
        self,
        base: str,
        revision: str | None,
        adapters: Sequence[AdapterWeight],
        strength: float,
        device: "torch.device",
    ) -> None:
        from safetensors import safe_open

        folder = transformer_folder(base, revision)
        self._device = device
        self.config: dict[str, Any] = read_json(folder / "config.json")
        files = [_SINGLE]
        if (folder / _INDEX).is_file():
            files = sorted(set(read_json(folder / _INDEX)["weight_map"].values()))
        handles: list[Any] = [safe_open(folder / name, framework="pt", device="cpu") for name in files]
        self._where = {key: handle for handle in handles for key in handle.keys()}  # noqa: SIM118 - no mapping
        shapes = {key: tuple(handle.get_slice(key).get_shape()) for key, handle in self._where.items()}
        layers = {
            key.removesuffix(".weight"): (shape[0], shape[1])
            for key, shape in shapes.items()
            if key.endswith(".weight") and len(shape) == 2
        }
        stack = [(one, read_adapter(one.path, layers)) for one in adapters]
        self.modules = sum(len(found) for _, found in stack)
        self._shares: dict[str, list[tuple[float, Any]]] = {}
        for one, found in stack:
            for name, deltas in found.items():
                shares = [(one.weight * strength, delta) for delta in deltas]
                self._shares.setdefault(f"{name}.weight", []).extend(shares)
        self._changes: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str) -> "torch.Tensor":
        """A tensor in bfloat16, merged."""
        import torch

        weight: torch.Tensor = self._where[name].get_tensor(name)
        # Copied to the device, or on the CPU: safetensors' tensors are 8-byte aligned.
        weight = weight.to(self._device, torch.bfloat16, copy=True)
        shares = self._shares.get(name)
        if shares:
            total = weight.float()
            for share, delta in shares:
                total = total + share * delta.scale * _whole(delta, self._device)
            merged = total.to(torch.bfloat16)
            moved = float((merged.float() - weight.float()).square().sum())
            self._changes[name] = (moved, float(weight.float().square().sum()))
            weight = merged
        return weight

    @property
    def effect(self) -> float:
        """How far the adapters move the weights that they name: relative Euclidean distance, in bfloat16."""
        for name in self._shares.keys() - self._changes.keys():
            self(name)
        whole = sum(one for _, one in self._changes.values())
        return math.sqrt(sum(one for one, _ in self._changes.values()) / whole) if whole else 0.0


def _whole(delta: Delta, device: "torch.device") -> "torch.Tensor":
    """ΔW on the device; LoKr's, which is one product a number, is made there: it has the same bits everywhere."""
    if isinstance(delta, Kronecker):
        return Kronecker(tuple(factor.to(device) for factor in delta.factors), delta.scale).whole()
    return delta.whole().to(device)


def transformer_folder(base: str, revision: str | None) -> Path:
    """The transformer's folder on this machine, downloaded where it is not.

    Raises:
        UserError: the base has none, or not in safetensors.
    """
    local = Path(base).expanduser()
    folder = (local if local.is_dir() else snapshot(base, revision, ["transformer/*"])) / "transformer"
    if not (folder / _INDEX).is_file() and not (folder / _SINGLE).is_file():
        raise UserError(
            f"The base model {base} can't be loaded: {folder} has no {_SINGLE}.",
            fix="Check [model] base; delete a damaged download and let it be downloaded again.",
        )
    return folder
