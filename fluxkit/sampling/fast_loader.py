"""Builds, keeps and places the fast transformer: from disk where it was made before, else tensor by tensor.

A first start reads the base (24 GB), merges and quantizes; a second one reads what was kept (9 GB in fp8 or int8).
Neither ever holds the 22 GiB of bfloat16 on the GPU or in RAM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.hardware import gpus, host_memory
from fluxkit.sampling.base_weights import BaseWeights, transformer_folder
from fluxkit.sampling.fused_ops import best_ops
from fluxkit.sampling.memory import GIB_FIRST_BLOCK, Weights
from fluxkit.sampling.ops import PlainOps, WeightKind
from fluxkit.sampling.plan import AdapterWeight
from fluxkit.sampling.tensor_cache import component_facts, digest, library_versions, sampling_cache

if TYPE_CHECKING:
    import torch

    from fluxkit.sampling.fastflux import FastFlux
    from fluxkit.sampling.reading import TensorFile
    from fluxkit.sampling.tables import Condition


@dataclass
class Loaded:
    """A transformer, ready to be placed: on the CPU, or on disk with only its shapes read.

    Args:
        model: the transformer.
        modules: layers that adapters were merged into.
        effect: how far the adapters moved those layers' weights (relative Euclidean distance).
        from_cache: whether it was read from disk, merged and quantized.
        facts: what decides the weights.
        sizes: what they take.
        file: where the weights still are; None where the model has them.
    """

    model: "FastFlux"
    modules: int
    effect: float
    from_cache: bool
    facts: dict[str, Any]
    sizes: Weights
    file: "TensorFile | None" = None

    def settle(self, device: "torch.device", streamed: int) -> None:
        """Put everything on the device but the last `streamed` blocks, which are streamed from the host's memory.

        Raises:
            OSError: the file can't be read any more.
            torch.OutOfMemoryError: it does not fit; it may be tried again with more blocks streamed.
        """
        if self.file is not None:
            from fluxkit.sampling.reading import read_tensors

            doubles = len(self.model.doubles)
            first = len(self.model.blocks) - streamed
            state = read_tensors(self.file, lambda name: "cpu" if _block(name, doubles) >= first else device)
            self.model.load_state_dict(state, assign=True)
            self.model.requires_grad_(False).eval()
            self.file = None
        self.model.settle(device, streamed)

    def keep_first_block(self, threshold: float) -> None:
        """Switch the first-block cache on."""
        from fluxkit.sampling.first_block import FirstBlockCache

        self.model.first_block_cache = FirstBlockCache(threshold, len(self.model.blocks))
        self.sizes = replace(self.sizes, kept_gib_per_image=GIB_FIRST_BLOCK)

    def sizes_in_nf4(self) -> Weights:
        """What the same model would take with its blocks in 4 bits."""
        from fluxkit.sampling.linears import RowLinear
        from fluxkit.sampling.nf4 import packed_bytes

        saved, largest = [], 0
        for block in self.model.blocks:
            weights = [one.weight for one in block.modules() if isinstance(one, RowLinear)]
            saved.append(sum(one.numel() * one.element_size() - packed_bytes(one.numel()) for one in weights))
            largest = max(largest, *(2 * one.numel() for one in weights))
        blocks = tuple(size - less for size, less in zip(self.sizes.block_bytes, saved, strict=True))
        return replace(self.sizes, block_bytes=blocks, working_bytes=largest)


class FastLoader:
    """Makes transformers of one base.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
        kind: what the blocks' weights are held in.
        device: where quantizing is done.
    """

    def __init__(self, base: str, revision: str | None, kind: WeightKind, device: "torch.device") -> None:
        self._base, self._revision, self._kind, self.device = base, revision, kind, device
        self._weights: BaseWeights | None = None
        self._request: tuple[Sequence[AdapterWeight], float] = ((), 0.0)

    def load(self, adapters: Sequence[AdapterWeight], strength: float) -> Loaded:
        """The transformer with a stack merged in.

        Raises:
            UserError: the base or an adapter can't be used.
        """
        from fluxkit.sampling.fastflux import FastFlux
        from fluxkit.sampling.linears import RowLinear, int8_tile

        folder = transformer_folder(self._base, self._revision)
        self._weights, self._request = None, (adapters, strength)
        facts = _facts(self._base, self._revision, adapters, strength, self._kind, self.device.type)
        ops = _ops(self._kind, self.device)
        cache = sampling_cache("transformers")
        kept = cache.open(facts)
        model = _restore(folder, kept, self._kind, ops) if kept else None
        if kept and model is not None:
            modules, effect = int(kept.metadata["modules"]), float(kept.metadata["effect"])
        else:
            kept, weights = None, self._source()
            model = FastFlux(weights.config, weights, self._kind, ops, home="cpu")
            modules, effect = weights.modules, weights.effect
            cache.store(facts, model.state_dict(), modules=str(modules), effect=repr(effect))
        if self.device.type == "cuda" and self._kind == "int8":
            import torch

            tile = int8_tile(torch.cuda.get_device_capability(self.device))
            for layer in model.modules():
                if isinstance(layer, RowLinear):
                    layer.tile = tile
        return Loaded(model, modules, effect, kept is not None, facts, _sizes(model), kept)

    def again(self, loaded: Loaded) -> Loaded:
        """The same transformer made from the base, after its file could not be read."""
        sampling_cache("transformers").drop(loaded.facts)
        made, cache = self.load(*self._request), loaded.model.first_block_cache
        if cache is not None:
            made.keep_first_block(cache.threshold)
        return made

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


def needed_files(
    base: str, revision: str | None, adapters: Sequence[AdapterWeight], strength: float, kind: WeightKind
) -> list[Path]:
    """The large files that a start will read, by what is known before torch is there; none where RAM is short."""
    if component_facts(base, revision, "transformer") is None:
        return []
    folder = transformer_folder(base, revision)
    facts = _facts(base, revision, adapters, strength, kind, "cuda" if gpus() else "cpu")
    kept = sampling_cache("transformers").find(facts)
    files = [kept] if kept else sorted(folder.glob("*.safetensors"))
    return files if sum(one.stat().st_size for one in files) * 1.2 < host_memory().available else []


def _facts(
    base: str, revision: str | None, adapters: Sequence[AdapterWeight], strength: float, kind: WeightKind, device: str
) -> dict[str, Any]:
    """What decides the weights."""
    return {
        "base": component_facts(base, revision, "transformer"),
        "adapters": [[digest(one.path), one.weight] for one in adapters],
        "strength": strength if adapters else 0.0,
        "kind": kind,
        "format": 2,  # fp8 weights have their scales in bfloat16
        "device": device,
        "libraries": library_versions("torch", *(["bitsandbytes"] if kind == "nf4" else [])),
    }


def _restore(folder: Path, kept: "TensorFile", kind: WeightKind, ops: PlainOps) -> "FastFlux | None":
    """A transformer of the shapes that a kept state has; None where the state is another model's."""
    from fluxkit.files import read_json
    from fluxkit.sampling.fastflux import FastFlux
    from fluxkit.sampling.frame import FluxConfig, empty_source

    config = FluxConfig(read_json(folder / "config.json"))
    model = FastFlux(config, empty_source(config), kind, ops)
    wanted = {name: (str(one.dtype), tuple(one.shape)) for name, one in model.state_dict().items()}
    found = {name: (f"torch.{entry.dtype}", entry.shape) for name, entry in kept.entries.items()}
    return model if wanted == found else None


def _block(name: str, doubles: int) -> int:
    """The number of the block that a tensor belongs to; -1 for none."""
    kind, _, rest = name.partition(".")
    if kind not in ("doubles", "singles"):
        return -1
    return int(rest.partition(".")[0]) + (doubles if kind == "singles" else 0)


def _ops(kind: WeightKind, device: "torch.device") -> PlainOps:
    import torch

    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return best_ops("bf16" if kind == "nf4" else kind, capability)


def _sizes(model: "FastFlux") -> Weights:
    from fluxkit.sampling.nf4 import Nf4Linear

    def size(module: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())

    blocks = tuple(size(block) for block in model.blocks)
    unpacked = max((one.unpacked_bytes for one in model.modules() if isinstance(one, Nf4Linear)), default=0)
    return Weights(size(model) - sum(blocks), blocks, unpacked)
