"""What lies between FLUX's matrix products, as fused kernels: on CUDA, without `torch.compile`."""

from typing import TYPE_CHECKING, Any

from fluxkit.sampling.ops import Kind, PlainOps, Product, Rows

if TYPE_CHECKING:
    import torch

_KIND_NUMBER = {"bf16": 0, "fp8": 1, "int8": 2}


class FusedOps(PlainOps):
    """As Triton kernels; intermediate roundings to bfloat16 are left out, so results differ in the last bits.

    Args:
        kind: of the products.
        scale_later: products in fp8 are made without scales, which is faster (1,491 against 1,335 TFLOP/s on an H100),
            and scaled by the kernel that reads them.
        whole_pieces: use `row_kernels.py` where the widths allow it, instead of `kernels.py` with its masks.
        quantized_attention: attention is quantized too (`quantized_attention.py`), where products are scaled later.
    """

    def __init__(
        self, kind: Kind, *, scale_later: bool = True, whole_pieces: bool = True, quantized_attention: bool = False
    ) -> None:
        super().__init__(kind)
        self._pieces, self.quantized_attention = whole_pieces, quantized_attention
        self._later = scale_later and kind == "fp8"

    def product(self, layer: Any, rows: Rows) -> Product:
        """As `PlainOps.product`, perhaps unfinished."""
        if self._later and layer.bias is not None:
            return Product(layer.unscaled(rows), rows.scale, layer.scale, layer.bias)
        return Product(layer(rows))

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

    def activate(self, right: Product, left: "torch.Tensor | None" = None) -> Rows:
        """As `PlainOps.activate`; rows of `right` may lie apart."""
        return self._activate(left, right)

    def rows(self, x: "torch.Tensor") -> Rows:
        """As `PlainOps.rows`."""
        if self.kind == "bf16":
            return Rows(x, None)
        return self._activate(x, None)

    def _activate(self, left: "torch.Tensor | None", right: Product | None) -> Rows:
        given = left if right is None else right.values
        assert given is not None  # noqa: S101 - for the type checker
        batch, tokens, _ = given.shape
        # Rows must follow one another at one distance, through all the pictures.
        one, two = (x if _evenly(x) else x.contiguous() for x in (given if left is None else left, given))
        widths = (0 if left is None else one.shape[2], 0 if right is None else two.shape[2])
        out, scales = self._out((batch, tokens, sum(widths)), given)
        scaled, factors = _factors(right, two)
        kernel, options = self._activation(*widths)
        kernel[(batch * tokens,)](
            one, two, out, scales, *factors, one.stride(1), two.stride(1),
            LEFT=widths[0], RIGHT=widths[1], KIND=_KIND_NUMBER[self.kind], SCALED=scaled, **options,
        )  # fmt: skip
        return Rows(out, scales if self.kind != "bf16" else None)

    def _activation(self, left: int, right: int) -> tuple[Any, dict[str, int]]:
        """The kernel for these widths, and what else it is told."""
        pieces = _piece(left), _piece(right)
        if self._pieces and pieces[0] and pieces[1]:
            from fluxkit.sampling.row_kernels import activate_row_kernel

            warps = _piece_warps(left + right)
            return activate_row_kernel, {"LEFT_PIECE": pieces[0], "RIGHT_PIECE": pieces[1], "num_warps": warps}
        from fluxkit.sampling.kernels import activate_kernel

        return activate_kernel, {"BLOCK": _power(left + right), "num_warps": _warps(left + right)}

    def _rotation(self, heads: int) -> tuple[Any, dict[str, int]]:
        """The kernel for so many heads, and what else it is told."""
        group = min(heads & -heads, 8)
        if self._pieces and heads // group <= 8:
            from fluxkit.sampling.row_kernels import rotate_row_kernel

            return rotate_row_kernel, {"GROUP": group}
        from fluxkit.sampling.kernels import rotate_kernel

        return rotate_kernel, {"BLOCK": _power(heads)}

    def queries(
        self, streams: "list[tuple[Product, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "tuple[torch.Tensor, torch.Tensor, torch.Tensor]":
        """As `PlainOps.queries`; a single stream is changed in place."""
        kernel, options = self._rotation(heads)
        first = streams[0][0].values
        batch, inner = first.shape[0], first.shape[2]
        total = sum(x.values.shape[1] for x, _, _ in streams)
        joint = first if len(streams) == 1 else first.new_empty(batch, total, inner)
        half = inner // 3 // heads // 2
        offset = 0
        for product, norm_q, norm_k in streams:
            x = product.values
            tokens = x.shape[1]
            scaled, factors = _factors(product, x)
            values_too = scaled or x is not joint
            kernel[(batch * tokens, 3 if values_too else 2)](
                x, joint, norm_q.weight, norm_k.weight, rotary[0], rotary[1], *factors,
                tokens, total, offset, x.stride(1), joint.stride(1), norm_q.eps,
                HEADS=heads, HALF=half, SCALED=scaled, num_warps=4, **options,
            )  # fmt: skip
            offset += tokens
        query, key, value = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in joint.chunk(3, dim=-1))
        return query, key, value

    def attend(
        self, streams: "list[tuple[Product, Any, Any]]", heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]"
    ) -> "torch.Tensor":
        """As `PlainOps.attend`."""
        if self.quantized_attention:
            from fluxkit.sampling.quantized_attention import attend, can_attend

            if can_attend(streams, heads):
                return attend(streams, heads, rotary)
        return super().attend(streams, heads, rotary)

    def add_norm(
        self, x: "torch.Tensor", gate: "torch.Tensor", change: Product, scale: "torch.Tensor", shift: "torch.Tensor"
    ) -> "tuple[torch.Tensor, Rows]":
        """As `PlainOps.add_norm`, the sum in place: it is not read again to be normalized."""
        from fluxkit.sampling.kernels import add_norm_kernel

        batch, tokens, width = x.shape
        x, values = x.contiguous(), change.values.contiguous()
        out, scales = self._out((batch, tokens, width), x)
        scaled, factors = _factors(change, x)
        add_norm_kernel[(batch * tokens,)](
            x, gate, values, *factors, scale, shift, out, scales, tokens, gate.stride(0), scale.stride(0),
            D=width, BLOCK=_power(width), SCALED=scaled, KIND=_KIND_NUMBER[self.kind],
            num_warps=4,
        )  # fmt: skip
        return x, Rows(out, scales if self.kind != "bf16" else None)

    def _out(self, shape: tuple[int, int, int], like: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        dtype = {"bf16": like.dtype, "fp8": torch.float8_e4m3fn, "int8": torch.int8}[self.kind]
        return like.new_empty(shape, dtype=dtype), like.new_empty(shape[0] * shape[1], 1, dtype=torch.float32)


def best_ops(kind: Kind, capability: tuple[int, int] | None) -> PlainOps:
    """What lies between the products, as fast as this device does it.

    Args:
        kind: of the products.
        capability: the GPU's compute capability; None without one. Triton has bfloat16 from 8.0. Attention is quantized
            where that was measured to be faster, with fp8 on 9.0.
    """
    if capability is None or capability < (8, 0):
        return PlainOps(kind)
    return FusedOps(kind, quantized_attention=kind == "fp8" and capability == (9, 0))


def _factors(product: Product | None, unused: "torch.Tensor") -> "tuple[bool, tuple[Any, Any, Any]]":
    """Whether a product is to be scaled, and its scales and bias; something that is not read in their place."""
    if product is None or product.scale is None:
        return False, (unused, unused, unused)
    return True, (product.scale, product.column_scale, product.bias)


def _evenly(x: "torch.Tensor") -> bool:
    return bool(x.stride(2) == 1 and (x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)))


def _piece(width: int) -> int | None:
    """The power of two of which the width is one or three; None where it is not, 1 for nothing."""
    power = width & -width
    return power if power and width // power in (1, 3) else None if width else 1


def _power(width: int) -> int:
    return 1 << (width - 1).bit_length()


def _warps(width: int) -> int:
    return 4 if width <= 2048 else 8 if width <= 8192 else 16


def _piece_warps(width: int) -> int:
    return 4 if width <= 4096 else 8  # with 16 the small pieces are read in words of 4 bytes
