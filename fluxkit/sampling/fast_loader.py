"""Builds, keeps and places the fast transformer: from disk where it was made before, else tensor by tensor.

A first start reads the base (24 GB), merges and quantizes; a second one reads what was kept (9 GB in fp8 or int8).
Neither ever holds the 22 GiB of bfloat16 on the GPU or in RAM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fluxkit.files import sha256_file
from fluxkit.sampling.base_weights import BaseWeights, transformer_folder
from fluxkit.sampling.memory import Weights
from fluxkit.sampling.ops import FusedOps, Kind, PlainOps
from fluxkit.sampling.plan import AdapterWeight
from fluxkit.sampling.tensor_cache import component_facts, library_versions, sampling_cache

if TYPE_CHECKING:
    import torch

    from fluxkit.sampling.fastflux import FastFlux
    from fluxkit.sampling.tables import Condition


@dataclass
class Loaded:
    """A transformer on the CPU, ready to be placed.

    Args:
        model: the transformer.
        modules: layers that adapters were merged into.
        effect: how far the adapters moved those layers' weights (relative Euclidean distance).
        from_cache: whether it was read from disk, merged and quantized.
        facts: what decides the weights.
        sizes: what they take.
    """

    model: "FastFlux"
    modules: int
    effect: float
    from_cache: bool
    facts: dict[str, Any]
    sizes: Weights


class FastLoader:
    """Makes transformers of one base.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
        kind: what the blocks' products are made in.
        device: where quantizing is done.
    """

    def __init__(self, base: str, revision: str | None, kind: Kind, device: "torch.device") -> None:
        self._base, self._revision, self._kind, self.device = base, revision, kind, device
        self._weights: BaseWeights | None = None
        self._request: tuple[Sequence[AdapterWeight], float] = ((), 0.0)

    def load(self, adapters: Sequence[AdapterWeight], strength: float) -> Loaded:
        """The transformer with a stack merged in.

        Raises:
            UserError: the base or an adapter can't be used.
        """
        from fluxkit.sampling.fastflux import FastFlux
        from fluxkit.sampling.linears import INT8_TILE, RowLinear

        folder = transformer_folder(self._base, self._revision)
        self._weights, self._request = None, (adapters, strength)
        facts = {
            "base": component_facts(self._base, self._revision, "transformer"),
            "adapters": [[sha256_file(one.path), one.weight] for one in adapters],
            "strength": strength if adapters else 0.0,
            "kind": self._kind,
            "device": self.device.type,
            "libraries": library_versions("torch", "diffusers"),
        }
        ops = (FusedOps if self.device.type == "cuda" else PlainOps)(self._kind)
        cache = sampling_cache("transformers")
        kept = cache.load(facts)
        model = _restore(folder, kept[0], self._kind, ops) if kept else None
        if kept and model is not None:
            modules, effect = int(kept[1]["modules"]), float(kept[1]["effect"])
        else:
            weights = self._source()
            model = FastFlux(weights.config, weights, self._kind, ops, home="cpu")
            modules, effect = weights.modules, weights.effect
            cache.store(facts, model.state_dict(), modules=str(modules), effect=repr(effect))
        if self.device.type == "cuda" and self._kind == "int8":
            for layer in model.modules():
                if isinstance(layer, RowLinear):
                    layer.tile = INT8_TILE
        return Loaded(model, modules, effect, kept is not None, facts, _sizes(model))

    def tables(
        self, loaded: Loaded, scheduler: Any, wanted: "Mapping[Condition, torch.Tensor]"
    ) -> "dict[Condition, dict[str, torch.Tensor]]":
        """The adaLN layers' outputs for each condition, of which pooled prompt embeddings (1, width) are given."""
        from fluxkit.sampling.tables import make_tables

        cache = sampling_cache("tables")
        facts = {
            condition: {"model": loaded.facts, "condition": asdict(condition), "scheduler": dict(scheduler.config)}
            for condition in wanted
        }
        kept = {condition: cache.load(one) for condition, one in facts.items()}
        tables = {condition: found[0] for condition, found in kept.items() if found}
        missing = {condition: pooled for condition, pooled in wanted.items() if condition not in tables}
        if missing:
            made = make_tables(loaded.model, self._source(), scheduler, missing)
            for condition, table in made.items():
                cache.store(facts[condition], table)
            tables |= made
        return tables

    def _source(self) -> BaseWeights:
        if self._weights is None:
            adapters, strength = self._request
            self._weights = BaseWeights(self._base, self._revision, adapters, strength, self.device)
        return self._weights


def _restore(folder: Any, state: "dict[str, torch.Tensor]", kind: Kind, ops: PlainOps) -> "FastFlux | None":
    """A transformer filled with a kept state; None where the state is another model's."""
    import torch
    from diffusers import FluxTransformer2DModel

    from fluxkit.files import read_json
    from fluxkit.sampling.fastflux import FastFlux

    config = read_json(folder / "config.json")
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in FluxTransformer2DModel.from_config(config).state_dict().items()}

    def empty(name: str) -> torch.Tensor:
        return torch.empty(shapes[name], dtype=torch.bfloat16, device="meta")

    model = FastFlux(config, empty, kind, ops)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError:
        return None
    model.requires_grad_(False).eval()
    return model


def _sizes(model: "FastFlux") -> Weights:
    def size(module: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())

    blocks = tuple(size(block) for block in model.blocks)
    return Weights(size(model) - sum(blocks), blocks)
