"""Attention with q and k in int8, probabilities and v in fp8 (`attention_kernels.py`), for products in fp8.

Its error against attention in bfloat16 is 1.8% where all tokens are looked at nearly alike, 4.8% where few are; with
getting ready for it, it takes 25.9 ms of a step of FLUX.1 where bfloat16 takes 28.3 (H200; docs/sampling-speed.md).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fluxkit.sampling.ops import Product

if TYPE_CHECKING:
    import torch

# Queries a program, keys at a time, warps and stages: the fastest of 15 on an H200.
_ROWS, _TILE, _WARPS, _STAGES = 64, 128, 4, 3
# Tokens of one head that a program prepares, and its warps.
_PREPARED, _PREPARING_WARPS = 32, 2
# Tokens that tell v's centre and spread: the mean of so many is within an eighth of the spread.
_SAMPLE = 64

Stream = tuple[Product, Any, Any]


def can_attend(streams: Sequence[Stream], heads: int) -> bool:
    """Whether it is made for such [q, k, v] rows: still to be scaled, heads of a power of two."""
    width = streams[0][0].values.shape[2] // 3 // heads
    return len(streams) <= 2 and width in (32, 64, 128) and all(product.scale is not None for product, _, _ in streams)


def attend(streams: Sequence[Stream], heads: int, rotary: "tuple[torch.Tensor, torch.Tensor]") -> "torch.Tensor":
    """As `PlainOps.attend`: (batch, all tokens, heads · head width) in bfloat16.

    Args:
        streams: as there, one or two, products that are still to be scaled.
        heads: attention heads.
        rotary: as there.
    """
    import torch
    import triton
    from triton.tools.tensor_descriptor import TensorDescriptor

    from fluxkit.sampling.attention_kernels import attention_kernel, prepare_values_kernel, quantize_rows_kernel

    first, last = streams[0][0].values, streams[-1][0]
    batch, width = first.shape[0], first.shape[2] // 3 // heads
    total = sum(product.values.shape[1] for product, _, _ in streams)
    padded = -(-total // 16) * 16  # a described tensor's rows start at multiples of 16 bytes
    places = batch * heads
    q, k = (first.new_empty(places * total, width, dtype=torch.int8) for _ in range(2))
    v = first.new_empty(places * width, padded, dtype=torch.float8_e4m3fn)
    q_scale = first.new_empty(places * total, dtype=torch.float32)
    k_largest = first.new_zeros(places, dtype=torch.float32)
    centre, unit = (first.new_empty(places * width, dtype=torch.float32) for _ in range(2))
    offsets = [sum(product.values.shape[1] for product, _, _ in streams[:number]) for number in range(len(streams))]
    for (product, _, norm_k), offset in zip(streams, offsets, strict=True):
        x, tokens = product.values, product.values.shape[1]
        # The picture's tokens, or all, are the sample for text too: most of what is attended to is theirs.
        prepare_values_kernel[(triton.cdiv(tokens, _PREPARED), heads, 2 * batch)](
            x, v, k_largest, centre, unit, norm_k.weight, product.scale, product.column_scale, product.bias,
            last.values, last.scale, last.column_scale, last.bias,
            tokens, x.stride(1), last.values.shape[1], last.values.stride(1), padded, offset, norm_k.eps,
            HEADS=heads, WIDTH=width, TILE=_PREPARED, SAMPLE=_SAMPLE, num_warps=_PREPARING_WARPS,
        )  # fmt: skip
    # In a loop of its own: a head's k has one scale in all streams.
    for (product, norm_q, norm_k), offset in zip(streams, offsets, strict=True):
        x, tokens = product.values, product.values.shape[1]
        quantize_rows_kernel[(batch * tokens, 2)](
            x, q, k, q_scale, k_largest, norm_q.weight, norm_k.weight, rotary[0], rotary[1],
            product.scale, product.column_scale, product.bias, tokens, x.stride(1), total, offset, norm_q.eps,
            HEADS=heads, HALF=width // 2, GROUP=min(heads & -heads, 8), num_warps=4,
        )  # fmt: skip
    out = first.new_empty(batch, total, heads * width)
    attention_kernel[(triton.cdiv(total, _ROWS), places)](
        TensorDescriptor(q, [places * total, width], [width, 1], [_ROWS, width]),
        TensorDescriptor(k, [places * total, width], [width, 1], [_TILE, width]),
        TensorDescriptor(v, [places * width, total], [padded, 1], [width, _TILE]),
        out, q_scale, k_largest, centre, unit, total, width**-0.5,
        HEADS=heads, WIDTH=width, ROWS=_ROWS, TILE=_TILE, STAGES=_STAGES, REST=total % _TILE != 0, num_warps=_WARPS,
    )  # fmt: skip
    return out
