"""What lies between FLUX's matrix products, in plain torch: it runs anywhere, and is what gets compiled.

A `Rows` is what a linear layer takes: values (…, width) and, where they are quantized, one float32 scale a row. A
`Product` is what it gives. `fused_ops.py` has the same as kernels.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Kind = Literal["bf16", "fp8", "int8"]
# Of weights; nf4's are multiplied in bfloat16.
WeightKind = Literal["bf16", "fp8", "int8", "nf4"]
FP8_MAX, INT8_MAX = 448.0, 127.0


class Rows(NamedTuple):
    """Rows for a matrix product.

    Args:
        values: (batch, tokens, width), in bfloat16, float8_e4m3fn or int8.
        scale: (batch · tokens, 1) in float32, what each row is to be multiplied by; None in bfloat16.
    """

    values: "torch.Tensor"
    scale: "torch.Tensor | None"


class Product(NamedTuple):
    """What a linear layer gives: `values · scale · column_scale + bias`, which its consumer works out.

    Args:
        values: (batch, tokens, width) in bfloat16.
        scale: (batch · tokens, 1) in float32, of the rows; None where the values are finished.
        column_scale: (1, width) in bfloat16; None where the values are finished.
        bias: (width,) in bfloat16; None where the values are finished.
    """

    values: "torch.Tensor"
    scale: "torch.Tensor | None" = None
    column_scale: "torch.Tensor | None" = None
    bias: "torch.Tensor | None" = None


def columns(product: Product, start: int, stop: int) -> Product:
    """Some columns of a product, as a view."""
    values = product.values[:, :, start:stop]
    if product.scale is None or product.column_scale is None or product.bias is None:
        return Product(values)
    return Product(values, product.scale, product.column_scale[:, start:stop], product.bias[start:stop])


def quantize_rows(x: "torch.Tensor", kind: Kind, *, short_scale: bool = False) -> Rows:
    """One scale a row, from the row's largest magnitude.

    Args:
        x: (…, width) in bfloat16.
        kind: what to quantize to; `bf16` leaves x as it is.
        short_scale: in fp8, the scale in bfloat16, rounded up, and the values for just that scale: nothing is lost.
    """
    import torch

    if kind == "bf16":
        return Rows(x, None)
    if x.is_meta:  # a model to be filled later; sums on `meta` import torch's compiler
        dtype = torch.float8_e4m3fn if kind == "fp8" else torch.int8
        scales = torch.bfloat16 if kind == "fp8" and short_scale else torch.float32
        return Rows(x.new_empty(x.shape, dtype=dtype), x.new_empty(x.numel() // x.shape[-1], 1, dtype=scales))
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    if kind == "fp8" and short_scale:
        # Up to 1/128 larger than needed: the largest value is not cut off by rounding down.
        scale = (largest * (1.00390625 / FP8_MAX)).bfloat16()
        values = (wide / scale.float()).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
        return Rows(values, scale.view(-1, 1))
    if kind == "fp8":
        values = (wide * (FP8_MAX / largest)).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
        return Rows(values, (largest / FP8_MAX).view(-1, 1))
    return Rows((wide * (INT8_MAX / largest)).round().to(torch.int8), (largest / INT8_MAX).view(-1, 1))


def attention(query: "torch.Tensor", key: "torch.Tensor", value: "torch.Tensor") -> "torch.Tensor":
    """(batch, heads, tokens, head width) each → (batch, tokens, heads · head width)."""
    import torch

    out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).flatten(2, 3)


class PlainOps:
    """In torch operations: any device; the order of roundings is diffusers'."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def product(self, layer: Any, rows: Rows) -> Product:
        """A linear layer's product."""
        return Product(layer(rows))

    def norm_modulate(self, x: "torch.Tensor", scale: "torch.Tensor", shift: "torch.Tensor") -> Rows:
        """LayerNorm of x (batch, tokens, width), times 1 + scale, plus shift (batch, width)."""
        import torch

        normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        return quantize_rows(normed * (1 + scale[:, None]) + shift[:, None], self.kind)

    def activate(self, right: Product, left: "torch.Tensor | None" = None) -> Rows:
        """`[left, gelu(right)]`, for the second half of the feed-forward layers."""
        import torch

        activated = torch.nn.functional.gelu(right.values, approximate="tanh")
        return quantize_rows(activated if left is None else torch.cat([left, activated], dim=2), self.kind)

    def rows(self, x: "torch.Tensor") -> Rows:
        """X as it is."""
        # A product over rows that lie apart is made picture by picture, with other roundings.
        return quantize_rows(x.contiguous(), self.kind)

    def queries(
        self, streams: "list[tuple[Product, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """q, k and v of the joined streams, each (batch, heads, tokens, head width): normalized and rotated.

        Args:
            streams: [q, k, v] rows (batch, tokens, 3 · heads · head width), with the stream's norms of q and k.
            heads: attention heads.
            rotary: cosines and sines of all the streams' tokens, (tokens, head width) each, values twice.
        """
        import torch

        parts: list[list[torch.Tensor]] = [[], [], []]
        for x, norm_q, norm_k in streams:
            query, key, value = (one.unflatten(-1, (heads, -1)) for one in x.values.chunk(3, dim=-1))
            for part, tensor in zip(parts, (norm_q(query), norm_k(key), value), strict=True):
                part.append(tensor)
        query, key, value = (part[0] if len(part) == 1 else torch.cat(part, dim=1) for part in parts)
        query, key = (_rotate(one, rotary) for one in (query, key))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def attend(
        self, streams: "list[tuple[Product, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "torch.Tensor":
        """Attention over what `queries` makes of the same arguments: (batch, all tokens, heads · head width)."""
        return attention(*self.queries(streams, heads, rotary))

    def add_norm(
        self, x: "torch.Tensor", gate: "torch.Tensor", change: Product, scale: "torch.Tensor", shift: "torch.Tensor"
    ) -> "tuple[torch.Tensor, Rows]":
        """X + gate · change, with the picture's gate (batch, width), and `norm_modulate` of that."""
        x = x + gate[:, None] * change.values
        return x, self.norm_modulate(x, scale, shift)


def _rotate(x: "torch.Tensor", rotary: "tuple[torch.Tensor, torch.Tensor]") -> "torch.Tensor":
    """Turn pairs of neighbours of x (batch, tokens, heads, head width), in diffusers' order of roundings."""
    import torch

    cos, sin = (one[None, :, None, :] for one in rotary)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(3)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)
