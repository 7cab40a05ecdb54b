"""What one layer gains from an adapter: ΔW in factors, whole for merging or applied to activations beside the layer.

The definitions are those of the LyCORIS paper (arXiv:2309.14859) and LoRA (arXiv:2106.09685); tests hold each against
the wrapper it is trained with. LyCORIS's own `merge_to` and `multiplier` are not used: they apply alpha/rank twice for
low-rank LoKr and LoHa and ignore the strength given at loading (measured with lycoris-lora 4.1.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Delta(Protocol):
    """One layer's change: `factors` are its tensors, by name; `scale` is alpha/rank, or 1."""

    @property
    def factors(self) -> "tuple[torch.Tensor, ...]":
        """The tensors that it is made of; ΔW is linear in each."""

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW. Raises ValueError where the factors don't fit each other."""

    def whole(self) -> "torch.Tensor":
        """ΔW without the scale, (out, in)."""

    def rows(self, start: int, stop: int) -> "Delta":
        """The change of some outputs alone. Raises ValueError where the factors can't be split there."""

    def apply(self, inputs: "torch.Tensor", factors: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        """ΔW · inputs without the scale: (…, in) → (…, out), from factors on the inputs' device in their dtype."""


@dataclass(frozen=True)
class LowRank:
    """LoRA: up · down, (out, rank) · (rank, in)."""

    factors: "tuple[torch.Tensor, ...]"
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        return _product(*self.factors)

    def whole(self) -> "torch.Tensor":
        """ΔW without the scale, (out, in)."""
        up, down = self.factors
        return up @ down

    def rows(self, start: int, stop: int) -> "LowRank":
        """The change of some outputs alone."""
        up, down = self.factors
        return LowRank((up[start:stop], down), self.scale)

    def apply(self, inputs: "torch.Tensor", factors: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        """ΔW · inputs without the scale."""
        up, down = factors
        return inputs @ down.mT @ up.mT


@dataclass(frozen=True)
class Kronecker:
    """LoKr: w1 ⊗ w2, (a, c) ⊗ (b, d), for a layer of c·d inputs and a·b outputs."""

    factors: "tuple[torch.Tensor, ...]"
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        (a, c), (b, d) = (_matrix(factor) for factor in self.factors)
        return a * b, c * d

    def whole(self) -> "torch.Tensor":
        """ΔW without the scale, (a·b, c·d)."""
        import torch

        return torch.kron(*self.factors)

    def rows(self, start: int, stop: int) -> "Kronecker":
        """The change of some outputs alone: whole rows of w1, each of which stands for b outputs."""
        w1, w2 = self.factors
        each = w2.shape[0]
        if start % each or stop % each:
            raise ValueError("a LoKr of fused layers, which can't be split between them")
        return Kronecker((w1[start // each : stop // each], w2), self.scale)

    def apply(self, inputs: "torch.Tensor", factors: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        """ΔW · inputs without the scale: w1 · X · w2ᵀ for inputs read as (c, d); the product is never built."""
        w1, w2 = factors
        grouped = inputs.unflatten(-1, (w1.shape[1], w2.shape[1]))
        return (w1 @ (grouped @ w2.mT)).flatten(-2)


@dataclass(frozen=True)
class Hadamard:
    """LoHa: (w1a · w1b) ⊙ (w2a · w2b), each (out, rank) · (rank, in)."""

    factors: "tuple[torch.Tensor, ...]"
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        first, second = _product(*self.factors[:2]), _product(*self.factors[2:])
        if first != second:
            raise ValueError(f"factors of {first} and {second}")
        return first

    def rows(self, start: int, stop: int) -> "Hadamard":
        """The change of some outputs alone."""
        w1a, w1b, w2a, w2b = self.factors
        return Hadamard((w1a[start:stop], w1b, w2a[start:stop], w2b), self.scale)

    def whole(self) -> "torch.Tensor":
        """ΔW without the scale, (out, in)."""
        w1a, w1b, w2a, w2b = self.factors
        return (w1a @ w1b) * (w2a @ w2b)

    def apply(self, inputs: "torch.Tensor", factors: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
        """ΔW · inputs without the scale; ΔW is built each time, as it has no short form."""
        w1a, w1b, w2a, w2b = factors
        return inputs @ ((w1a @ w1b) * (w2a @ w2b)).mT


def make_delta(parameters: "Mapping[str, torch.Tensor]", alpha: float | None) -> Delta:
    """The change that a file's tensors of one module stand for.

    Args:
        parameters: tensors by LyCORIS's or PEFT's name, without `.weight` and without alpha.
        alpha: the file's; None for the rank, which is the convention of all loaders.

    Raises:
        ValueError: they are no LoRA, LoKr or LoHa of a linear layer.
    """
    names = set(parameters)
    if names in ({"lora_A", "lora_B"}, {"lora_down", "lora_up"}):
        up, down = (
            parameters[name] for name in (("lora_B", "lora_A") if "lora_A" in names else ("lora_up", "lora_down"))
        )
        return LowRank((up, down), _scale(alpha, down.shape[0]))
    if names == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}:
        factors = tuple(parameters[name] for name in sorted(names))
        return Hadamard(factors, _scale(alpha, factors[1].shape[0]))
    halves = []
    rank = None
    for half in ("lokr_w1", "lokr_w2"):
        if half in names:
            halves.append(parameters[half])
            names.remove(half)
        elif {f"{half}_a", f"{half}_b"} <= names:
            first, second = parameters[f"{half}_a"], parameters[f"{half}_b"]
            rank = rank or first.shape[1]  # LyCORIS's rule: w1's, where both halves are products
            halves.append(first @ second)
            names -= {f"{half}_a", f"{half}_b"}
    if len(halves) != 2 or names:
        raise ValueError(f"parameters {sorted(parameters)}")
    # Two whole halves have no rank, and LyCORIS gives them no scale, whatever alpha the file names.
    return Kronecker(tuple(halves), 1.0 if rank is None else _scale(alpha, rank))


def _scale(alpha: float | None, rank: int) -> float:
    return (alpha or rank) / rank


def _matrix(tensor: "torch.Tensor") -> tuple[int, int]:
    if tensor.dim() != 2:
        raise ValueError(f"a tensor of {tensor.dim()} dimensions")
    return tensor.shape[0], tensor.shape[1]


def _product(first: "torch.Tensor", second: "torch.Tensor") -> tuple[int, int]:
    (rows, inner), (other, columns) = _matrix(first), _matrix(second)
    if inner != other:
        raise ValueError(f"ranks {inner} and {other}")
    return rows, columns
