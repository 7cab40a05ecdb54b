"""What lies between FLUX's matrix products, in plain torch and as fused kernels with the same results.

A `Rows` is what a linear layer takes: values (…, width) and, where they are quantized, one float32 scale a row. The
fused form runs on CUDA without `torch.compile`; the plain one runs anywhere, and is what gets compiled.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Kind = Literal["bf16", "fp8", "int8"]
_KIND_NUMBER = {"bf16": 0, "fp8": 1, "int8": 2}
FP8_MAX, INT8_MAX = 448.0, 127.0


class Rows(NamedTuple):
    """Rows for a matrix product.

    Args:
        values: (batch, tokens, width), in bfloat16, float8_e4m3fn or int8.
        scale: (batch · tokens, 1) in float32, what each row is to be multiplied by; None in bfloat16.
    """

    values: "torch.Tensor"
    scale: "torch.Tensor | None"


def quantize_rows(x: "torch.Tensor", kind: Kind) -> Rows:
    """One scale a row, from the row's largest magnitude.

    Args:
        x: (…, width) in bfloat16.
        kind: what to quantize to; `bf16` leaves x as it is.
    """
    import torch

    if kind == "bf16":
        return Rows(x, None)
    wide = x.float()
    largest = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    if kind == "fp8":
        values = (wide * (FP8_MAX / largest)).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
        return Rows(values, (largest / FP8_MAX).view(-1, 1))
    return Rows((wide * (INT8_MAX / largest)).round().to(torch.int8), (largest / INT8_MAX).view(-1, 1))


class PlainOps:
    """In torch operations: any device; the order of roundings is diffusers'."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def norm_modulate(self, x: "torch.Tensor", scale: "torch.Tensor", shift: "torch.Tensor") -> Rows:
        """LayerNorm of x (batch, tokens, width), times 1 + scale, plus shift (batch, width)."""
        import torch

        normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        return quantize_rows(normed * (1 + scale[:, None]) + shift[:, None], self.kind)

    def activate(self, right: "torch.Tensor", left: "torch.Tensor | None" = None) -> Rows:
        """`[left, gelu(right)]`, for the second half of the feed-forward layers."""
        import torch

        activated = torch.nn.functional.gelu(right, approximate="tanh")
        return quantize_rows(activated if left is None else torch.cat([left, activated], dim=2), self.kind)

    def rows(self, x: "torch.Tensor") -> Rows:
        """X as it is."""
        # A product over rows that lie apart is made picture by picture, with other roundings.
        return quantize_rows(x.contiguous(), self.kind)

    def queries(
        self, streams: "list[tuple[torch.Tensor, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """q, k and v of the joined streams, each (batch, heads, tokens, head width): normalized and rotated.

        Args:
            streams: [q, k, v] rows (batch, tokens, 3 · heads · head width), with the stream's norms of q and k.
            heads: attention heads.
            rotary: cosines and sines of all the streams' tokens, (tokens, head width) each, values twice.
        """
        import torch
        from diffusers.models.embeddings import apply_rotary_emb

        parts: list[list[torch.Tensor]] = [[], [], []]
        for x, norm_q, norm_k in streams:
            query, key, value = (one.unflatten(-1, (heads, -1)) for one in x.chunk(3, dim=-1))
            for part, tensor in zip(parts, (norm_q(query), norm_k(key), value), strict=True):
                part.append(tensor)
        query, key, value = (part[0] if len(part) == 1 else torch.cat(part, dim=1) for part in parts)
        query, key = (apply_rotary_emb(one, rotary, sequence_dim=1) for one in (query, key))
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def add_gated(self, x: "torch.Tensor", gate: "torch.Tensor", change: "torch.Tensor") -> "torch.Tensor":
        """X + gate · change, with the picture's gate (batch, width)."""
        return x + gate[:, None] * change


class FusedOps(PlainOps):
    """As Triton kernels; intermediate roundings to bfloat16 are left out, so results differ in the last bits."""

    def norm_modulate(self, x: "torch.Tensor", scale: "torch.Tensor", shift: "torch.Tensor") -> Rows:
        """As `PlainOps.norm_modulate`."""
        from fluxkit.sampling.kernels import norm_modulate_kernel

        x = x.contiguous()
        batch, tokens, width = x.shape
        out, scales = self._out((batch, tokens, width), x)
        norm_modulate_kernel[(batch * tokens,)](
            x, scale, shift, out, scales, tokens, scale.stride(0),
            D=width, BLOCK=_power(width), KIND=_KIND_NUMBER[self.kind], num_warps=_warps(width),
        )  # fmt: skip
        return Rows(out, scales if self.kind != "bf16" else None)

    def activate(self, right: "torch.Tensor", left: "torch.Tensor | None" = None) -> Rows:
        """As `PlainOps.activate`; rows of `right` may lie apart."""
        return self._activate(left, right)

    def rows(self, x: "torch.Tensor") -> Rows:
        """As `PlainOps.rows`."""
        if self.kind == "bf16":
            return Rows(x, None)
        return self._activate(x, None)

    def _activate(self, left: "torch.Tensor | None", right: "torch.Tensor | None") -> Rows:
        from fluxkit.sampling.kernels import activate_kernel

        given = left if left is not None else right
        assert given is not None  # noqa: S101 - for the type checker
        batch, tokens, _ = given.shape
        # Rows must follow one another at one distance, through all the pictures.
        left, right = (one if one is None or _evenly(one) else one.contiguous() for one in (left, right))
        widths = [0 if one is None else one.shape[2] for one in (left, right)]
        out, scales = self._out((batch, tokens, sum(widths)), given)
        activate_kernel[(batch * tokens,)](
            given if left is None else left, given if right is None else right, out, scales,
            0 if left is None else left.stride(1), 0 if right is None else right.stride(1),
            LEFT=widths[0], RIGHT=widths[1], BLOCK=_power(sum(widths)), KIND=_KIND_NUMBER[self.kind],
            num_warps=_warps(sum(widths)),
        )  # fmt: skip
        return Rows(out, scales if self.kind != "bf16" else None)

    def queries(
        self, streams: "list[tuple[torch.Tensor, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """As `PlainOps.queries`; a single stream is changed in place."""
        from fluxkit.sampling.kernels import rotate_kernel

        first = streams[0][0]
        batch, inner = first.shape[0], first.shape[2]
        total = sum(x.shape[1] for x, _, _ in streams)
        joint = first if len(streams) == 1 else first.new_empty(batch, total, inner)
        half = inner // 3 // heads // 2
        offset = 0
        for x, norm_q, norm_k in streams:
            tokens = x.shape[1]
            rotate_kernel[(batch * tokens, 2 if x is joint else 3)](
                x, joint, norm_q.weight, norm_k.weight, rotary[0], rotary[1],
                tokens, total, offset, x.stride(1), joint.stride(1), norm_q.eps,
                HEADS=heads, HALF=half, BLOCK=_power(heads), COPY_V=x is not joint, num_warps=4,
            )  # fmt: skip
            offset += tokens
        query, key, value = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in joint.chunk(3, dim=-1))
        return query, key, value

    def add_gated(self, x: "torch.Tensor", gate: "torch.Tensor", change: "torch.Tensor") -> "torch.Tensor":
        """As `PlainOps.add_gated`, in place."""
        from fluxkit.sampling.kernels import add_gated_kernel

        batch, tokens, width = x.shape
        if not (x.is_contiguous() and change.is_contiguous()):
            return x.addcmul_(gate[:, None], change)
        add_gated_kernel[(batch * tokens,)](
            x, gate, change, tokens, gate.stride(0), D=width, BLOCK=_power(width), num_warps=_warps(width)
        )
        return x

    def _out(self, shape: tuple[int, int, int], like: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        dtype = {"bf16": like.dtype, "fp8": torch.float8_e4m3fn, "int8": torch.int8}[self.kind]
        return like.new_empty(shape, dtype=dtype), like.new_empty(shape[0] * shape[1], 1, dtype=torch.float32)


def _evenly(x: "torch.Tensor") -> bool:
    return bool(x.stride(2) == 1 and (x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)))


def _power(width: int) -> int:
    return 1 << (width - 1).bit_length()


def _warps(width: int) -> int:
    return 4 if width <= 2048 else 8 if width <= 8192 else 16
