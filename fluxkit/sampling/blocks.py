"""FLUX's two kinds of blocks, made of few large products and of what lies between them (`ops.py`)."""

from collections.abc import Callable

import torch  # noqa: TID253 - as in fastflux.py

from fluxkit.sampling.linears import RowLinear
from fluxkit.sampling.nf4 import Nf4Linear
from fluxkit.sampling.ops import PlainOps, Rows, WeightKind, columns

Source = Callable[[str], torch.Tensor]


class _Parts:
    """Reads a block's weights from a source and makes its layers."""

    def __init__(self, source: Source, prefix: str, kind: WeightKind) -> None:
        self.source, self.prefix, self.kind = source, prefix, kind

    def linear(self, *names: str) -> RowLinear | Nf4Linear:
        """One layer of several that take the same input, in that order."""
        weights = [self.source(f"{self.prefix}{name}.weight") for name in names]
        biases = [self.source(f"{self.prefix}{name}.bias") for name in names]
        weight, bias = _joined(weights), _joined(biases)
        return Nf4Linear(weight, bias) if self.kind == "nf4" else RowLinear(weight, bias, self.kind)

    def norm(self, name: str) -> torch.nn.RMSNorm:
        weight = self.source(f"{self.prefix}{name}.weight")
        with torch.device("meta"):
            norm = torch.nn.RMSNorm(weight.shape[0], eps=1e-6)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        return norm


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    if tensors[0].is_meta:  # torch.cat on `meta` imports torch's compiler: a second
        return tensors[0].new_empty(sum(len(one) for one in tensors), *tensors[0].shape[1:])
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


class DoubleBlock(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Text and image with weights of their own, joined in attention."""

    def __init__(self, source: Source, prefix: str, heads: int, kind: WeightKind) -> None:
        super().__init__()
        parts = _Parts(source, prefix, kind)
        self.heads = heads
        self.qkv = parts.linear("attn.to_q", "attn.to_k", "attn.to_v")
        self.out = parts.linear("attn.to_out.0")
        self.up, self.down = parts.linear("ff.net.0.proj"), parts.linear("ff.net.2")
        self.norm_q, self.norm_k = parts.norm("attn.norm_q"), parts.norm("attn.norm_k")
        self.text_qkv = parts.linear("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        self.text_out = parts.linear("attn.to_add_out")
        self.text_up, self.text_down = parts.linear("ff_context.net.0.proj"), parts.linear("ff_context.net.2")
        self.text_norm_q, self.text_norm_k = parts.norm("attn.norm_added_q"), parts.norm("attn.norm_added_k")

    def forward(
        self,
        image: torch.Tensor,
        text: torch.Tensor,
        normed: tuple[Rows, Rows],
        modulation: tuple[torch.Tensor, torch.Tensor],
        following: tuple[torch.Tensor, torch.Tensor],
        rotary: tuple[torch.Tensor, torch.Tensor],
        ops: PlainOps,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[Rows, Rows]]:
        """Image and text, each (batch, tokens, width), as they are and normalized, in and out.

        `modulation` has the rows of this block's tables for both, (batch, 6 · width), `following` those by which the
        results are normalized.
        """
        parts, text_parts = (one.chunk(6, dim=1) for one in modulation)
        attended = ops.attend(
            [
                (ops.product(self.text_qkv, normed[1]), self.text_norm_q, self.text_norm_k),
                (ops.product(self.qkv, normed[0]), self.norm_q, self.norm_k),
            ],
            self.heads,
            rotary,
        )
        tokens = text.shape[1]
        change = ops.product(self.out, ops.rows(attended[:, tokens:]))
        image, rows = ops.add_norm(image, parts[2], change, parts[4], parts[3])
        change = ops.product(self.down, ops.activate(ops.product(self.up, rows)))
        image, next_image = ops.add_norm(image, parts[5], change, *scale_and_shift(following[0]))
        change = ops.product(self.text_out, ops.rows(attended[:, :tokens]))
        text, rows = ops.add_norm(text, text_parts[2], change, text_parts[4], text_parts[3])
        change = ops.product(self.text_down, ops.activate(ops.product(self.text_up, rows)))
        text, next_text = ops.add_norm(text, text_parts[5], change, *scale_and_shift(following[1]))
        return image, text, (next_image, next_text)


def scale_and_shift(modulation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a double block's first norm, (batch, width) each, of (batch, 6 · width)."""
    shift, scale = modulation.chunk(6, dim=1)[:2]
    return scale, shift


class SingleBlock(torch.nn.Module):  # type: ignore[misc]
    """Text and image joined; attention and feed-forward side by side."""

    def __init__(self, source: Source, prefix: str, heads: int, kind: WeightKind) -> None:
        super().__init__()
        parts = _Parts(source, prefix, kind)
        self.heads = heads
        self.qkv_up = parts.linear("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        self.out = parts.linear("proj_out")
        self.norm_q, self.norm_k = parts.norm("attn.norm_q"), parts.norm("attn.norm_k")

    def forward(
        self,
        joined: torch.Tensor,
        normed: Rows,
        modulation: tuple[torch.Tensor, torch.Tensor],
        rotary: tuple[torch.Tensor, torch.Tensor],
        ops: PlainOps,
    ) -> tuple[torch.Tensor, Rows]:
        """(batch, tokens, width), as it is and normalized, in and out.

        `modulation` has this block's row of the table and that by which its result is normalized, (batch, 3 · width).
        """
        gate = modulation[0].chunk(3, dim=1)[2]
        shift, scale, _ = modulation[1].chunk(3, dim=1)
        width = joined.shape[2]
        product = ops.product(self.qkv_up, normed)
        qkv, up = columns(product, 0, 3 * width), columns(product, 3 * width, 7 * width)
        attended = ops.attend([(qkv, self.norm_q, self.norm_k)], self.heads, rotary)
        return ops.add_norm(joined, gate, ops.product(self.out, ops.activate(up, attended)), scale, shift)
