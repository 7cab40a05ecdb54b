"""Triton kernels for the two operations that move most between FLUX's products, for widths that fall into whole pieces.

`kernels.py` has both for any width. There a row is one block of a power of two, so a row of 15,360 numbers is worked on
as 16,384, and all of them go through GELU, also the 3,072 that are only copied. Here a row is one or three pieces of a
power of two: nothing is masked, and only what needs GELU gets it.
"""

# mypy: ignore-errors
import triton
import triton.language as tl

from fluxkit.sampling.kernels import FP8_MAX, INT8_MAX, rms_normed, rotated


@triton.jit
def _gelu(x):
    """GELU (tanh): 0.5·x·(1 + tanh(u)) = x / (1 + exp(-2u)), u = 0.79788·x·(1 + 0.044715·x²), in powers of two."""
    return x / (1.0 + tl.exp2(x * (-2.3022081980 - 0.1029432396 * x * x)))


@triton.jit
def _given(row_ptr, START: tl.constexpr, PIECE: tl.constexpr):
    """A piece of a row as it is."""
    return tl.load(row_ptr + START + tl.arange(0, PIECE)).to(tl.float32)


@triton.jit
def _activated(
    row_ptr, row_scale, column_scale_ptr, bias_ptr, START: tl.constexpr, PIECE: tl.constexpr, SCALED: tl.constexpr
):  # fmt: skip
    """A piece of a row of a product through GELU, its scales and bias applied where that was left to the reader."""
    columns = START + tl.arange(0, PIECE)
    x = tl.load(row_ptr + columns).to(tl.float32)
    if SCALED:
        scale = tl.load(column_scale_ptr + columns, eviction_policy="evict_last").to(tl.float32)
        bias = tl.load(bias_ptr + columns, eviction_policy="evict_last").to(tl.float32)
        x = x * (row_scale * scale) + bias
    return _gelu(x)


@triton.jit
def _put(x, out_row, factor, START: tl.constexpr, PIECE: tl.constexpr, KIND: tl.constexpr):
    """A piece of the output, as `kernels._store_row` has it; the row's largest times its factor rounds to the limit."""
    if KIND == 1:
        x = x * factor
    elif KIND == 2:
        x = tl.floor(x * factor + 0.5)
    tl.store(out_row + START + tl.arange(0, PIECE), x.to(out_row.dtype.element_ty))


@triton.jit
def activate_row_kernel(
    left_ptr, right_ptr, out_ptr, out_scale_ptr, row_scale_ptr, column_scale_ptr, bias_ptr, left_stride, right_stride,
    LEFT: tl.constexpr, LEFT_PIECE: tl.constexpr, RIGHT: tl.constexpr, RIGHT_PIECE: tl.constexpr,
    KIND: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One row of `[left, gelu(right)]`, as `kernels.activate_kernel`; each side is nothing, one piece or three."""
    row = tl.program_id(0).to(tl.int64)
    out_row = out_ptr + row * (LEFT + RIGHT)
    largest = 1e-12
    if LEFT > 0:
        left_row = left_ptr + row * left_stride
        left_0 = _given(left_row, 0, LEFT_PIECE)
        most = tl.abs(left_0)
        if LEFT > LEFT_PIECE:
            left_1 = _given(left_row, LEFT_PIECE, LEFT_PIECE)
            left_2 = _given(left_row, 2 * LEFT_PIECE, LEFT_PIECE)
            most = tl.maximum(most, tl.maximum(tl.abs(left_1), tl.abs(left_2)))
        largest = tl.maximum(tl.max(most, axis=0), largest)
    if RIGHT > 0:
        right_row = right_ptr + row * right_stride
        row_scale = 1.0
        if SCALED:
            row_scale = tl.load(row_scale_ptr + row)
        right_0 = _activated(right_row, row_scale, column_scale_ptr, bias_ptr, 0, RIGHT_PIECE, SCALED)
        most = tl.abs(right_0)
        if RIGHT > RIGHT_PIECE:
            right_1 = _activated(right_row, row_scale, column_scale_ptr, bias_ptr, RIGHT_PIECE, RIGHT_PIECE, SCALED)
            right_2 = _activated(right_row, row_scale, column_scale_ptr, bias_ptr, 2 * RIGHT_PIECE, RIGHT_PIECE, SCALED)
            most = tl.maximum(most, tl.maximum(tl.abs(right_1), tl.abs(right_2)))
        largest = tl.maximum(tl.max(most, axis=0), largest)
    limit: tl.constexpr = FP8_MAX if KIND == 1 else INT8_MAX
    factor = limit / largest
    if KIND != 0:
        tl.store(out_scale_ptr + row, largest / limit)
    if LEFT > 0:
        _put(left_0, out_row, factor, 0, LEFT_PIECE, KIND)
        if LEFT > LEFT_PIECE:
            _put(left_1, out_row, factor, LEFT_PIECE, LEFT_PIECE, KIND)
            _put(left_2, out_row, factor, 2 * LEFT_PIECE, LEFT_PIECE, KIND)
    if RIGHT > 0:
        _put(right_0, out_row, factor, LEFT, RIGHT_PIECE, KIND)
        if RIGHT > RIGHT_PIECE:
            _put(right_1, out_row, factor, LEFT + RIGHT_PIECE, RIGHT_PIECE, KIND)
            _put(right_2, out_row, factor, LEFT + 2 * RIGHT_PIECE, RIGHT_PIECE, KIND)


@triton.jit
def head_rows(x_row, place, row_scale, column_scale_ptr, bias_ptr, SCALED: tl.constexpr):
    """Some heads of a row, (heads, width of a head), finished where the product left that to the reader."""
    x = tl.load(x_row + place).to(tl.float32)
    if SCALED:
        scale = tl.load(column_scale_ptr + place, eviction_policy="evict_last").to(tl.float32)
        bias = tl.load(bias_ptr + place, eviction_policy="evict_last").to(tl.float32)
        x = x * (row_scale * scale) + bias
    return x


@triton.jit
def rotate_row_kernel(
    x_ptr, out_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, row_scale_ptr, column_scale_ptr, bias_ptr,
    length, out_length, offset, x_stride, out_stride, eps,
    HEADS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """As `kernels.rotate_kernel`, by groups of heads; HEADS is a multiple of GROUP, a power of two."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    width: tl.constexpr = 2 * HALF
    position = row % length + offset
    x_row = x_ptr + row * x_stride
    out_row = out_ptr + ((row // length) * out_length + position) * out_stride
    columns = tl.arange(0, width)[None, :]
    first = (part * HEADS + tl.arange(0, GROUP)[:, None]) * width + columns
    row_scale = 1.0
    if SCALED:
        row_scale = tl.load(row_scale_ptr + row)
    if part == 2:
        for group in tl.static_range(HEADS // GROUP):
            place = first + group * GROUP * width
            x = head_rows(x_row, place, row_scale, column_scale_ptr, bias_ptr, SCALED)
            tl.store(out_row + place, x.to(out_ptr.dtype.element_ty))
    else:
        weight_ptr = q_weight_ptr if part == 0 else k_weight_ptr
        weight = tl.load(weight_ptr + columns).to(tl.float32)
        cos = tl.load(cos_ptr + position * width + columns)
        sin = tl.load(sin_ptr + position * width + columns)
        for group in tl.static_range(HEADS // GROUP):
            place = first + group * GROUP * width
            x = head_rows(x_row, place, row_scale, column_scale_ptr, bias_ptr, SCALED)
            x = rotated(rms_normed(x, weight, eps, width), cos, sin, GROUP, HALF)
            tl.store(out_row + place, x.to(out_ptr.dtype.element_ty))
