"""Triton kernels for attention with q and k in int8, the rest in fp8: half the bytes and twice the rate of bfloat16.

q has a scale a token, k one a head. v has one a channel, and a centre that is taken out before and added after: what
all tokens have in common is not rounded. The probabilities lie between 0 and 1 and take no scale.
`quantized_attention.py` calls the kernels in the order in which they stand here.

The idea, and that q and k need int8's even steps while probabilities and v do well in fp8, is SageAttention's
(arXiv 2411.10958). There k's centre is taken out too; here k comes from an RMSNorm, which bounds it: no number is more
than 11.3 times as large as the root of the mean square, where int8's steps are no coarser than fp8's.
"""

# mypy: ignore-errors
import triton
import triton.language as tl

from fluxkit.sampling.kernels import INT8_MAX, rms_normed, rotated
from fluxkit.sampling.row_kernels import head_rows

# 1.5 · 2^23: a float32 of this size counts in ones, so that its bits plus an integer are the bits of the sum.
MAGIC = tl.constexpr(12582912.0)
MAGIC_BITS = tl.constexpr(0x4B400000)
# Probabilities are held 2^8 times as large: of fp8's range, the largest is then 256 of 448.
RAISED = tl.constexpr(8.0)


@triton.jit
def _numbers(x_ptr, stride, row_scale_ptr, tokens, inside, columns, column_scale_ptr, bias_ptr):
    """A product's numbers of some tokens, with its scales and bias applied; pointers to the picture's first token."""
    x = tl.load(x_ptr + tokens[:, None] * stride + columns[None, :], mask=inside[:, None], other=0.0).to(tl.float32)
    row_scale = tl.load(row_scale_ptr + tokens, mask=inside, other=0.0)
    scale = tl.load(column_scale_ptr + columns).to(tl.float32)
    return x * (row_scale[:, None] * scale[None, :]) + tl.load(bias_ptr + columns).to(tl.float32)[None, :]


@triton.jit
def _centre_and_unit(v, TOKENS: tl.constexpr):
    """Each channel's mean and spread; neither needs to be exact, only the same for all tokens.

    fp8 keeps its precision from 1/64 of a unit to 448 of them.
    """
    centre = tl.sum(v, axis=0) / TOKENS
    apart = v - centre[None, :]
    spread = tl.sqrt(tl.sum(apart * apart, axis=0) / TOKENS)
    # Where all of these are alike, the centre tells the size: it comes from bfloat16, of which 1/256 is noise.
    return centre, tl.maximum(tl.maximum(spread, tl.abs(centre) / 64.0), 1e-12)


@triton.jit
def prepare_values_kernel(
    x_ptr, v_ptr, k_largest_ptr, centre_ptr, unit_ptr, k_weight_ptr, row_scale_ptr, column_scale_ptr, bias_ptr,
    sample_ptr, sample_scale_ptr, sample_column_scale_ptr, sample_bias_ptr,
    length, stride, sample_length, sample_stride, padded, offset, eps,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, SAMPLE: tl.constexpr,
):  # fmt: skip
    """A stream's v to what `attention_kernel` takes, and the largest number that k will have in each head.

    Program (tile of tokens, head, 2 · picture + part), part 0 is v, 1 is k. v's centre and unit come from tokens that
    lie evenly over one stream, the same for all; every program works them out from these few again.
    """
    tile = tl.program_id(0)
    head = tl.program_id(1)
    picture = (tl.program_id(2) // 2).to(tl.int64)
    tokens = tile * TILE + tl.arange(0, TILE)
    inside = tokens < length
    x_ptr += picture * length * stride
    row_scale_ptr += picture * length
    each = tl.arange(0, WIDTH)
    place = picture * HEADS + head
    if tl.program_id(2) % 2 == 0:
        columns = (2 * HEADS + head) * WIDTH + each
        some = tl.arange(0, SAMPLE)
        sample = _numbers(
            sample_ptr + picture * sample_length * sample_stride, sample_stride,
            sample_scale_ptr + picture * sample_length, some * sample_length // SAMPLE, some < SAMPLE, columns,
            sample_column_scale_ptr, sample_bias_ptr,
        )  # fmt: skip
        centre, unit = _centre_and_unit(sample, SAMPLE)
        channels = place * WIDTH + each
        if tile == 0:
            tl.store(centre_ptr + channels, centre)
            tl.store(unit_ptr + channels, unit)
        v = _numbers(x_ptr, stride, row_scale_ptr, tokens, inside, columns, column_scale_ptr, bias_ptr)
        v = tl.clamp((v - centre[None, :]) * (1.0 / unit)[None, :], -448.0, 448.0).to(v_ptr.dtype.element_ty)
        v_ptr += place * WIDTH * padded + offset
        tl.store(v_ptr + each[:, None] * padded + tokens[None, :], tl.trans(v), mask=inside[None, :])
    else:
        columns = (HEADS + head) * WIDTH + each
        k = _numbers(x_ptr, stride, row_scale_ptr, tokens, inside, columns, column_scale_ptr, bias_ptr)
        k = tl.where(inside[:, None], k, 0.0)
        k = rms_normed(k, tl.load(k_weight_ptr + each).to(tl.float32)[None, :], eps, WIDTH)
        # A pair's length bounds both its numbers, however it will be turned.
        pairs = tl.sum(tl.reshape(k * k, (TILE, WIDTH // 2, 2)), axis=2)
        tl.atomic_max(k_largest_ptr + place, tl.sqrt(tl.max(tl.max(pairs, axis=1), axis=0)))


@triton.jit
def quantize_rows_kernel(
    x_ptr, q_ptr, k_ptr, q_scale_ptr, k_largest_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr,
    row_scale_ptr, column_scale_ptr, bias_ptr, length, stride, total, offset, eps,
    HEADS: tl.constexpr, HALF: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Of a row [q, k, v], q or k, normalized and rotated, in int8; program (row, part), part 0 is q, 1 is k."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    width: tl.constexpr = 2 * HALF
    position = row % length + offset
    columns = tl.arange(0, width)[None, :]
    heads = tl.arange(0, GROUP)
    row_scale = tl.load(row_scale_ptr + row)
    weight_ptr = q_weight_ptr if part == 0 else k_weight_ptr
    out_ptr = q_ptr if part == 0 else k_ptr
    weight = tl.load(weight_ptr + columns).to(tl.float32)
    cos = tl.load(cos_ptr + position * width + columns)
    sin = tl.load(sin_ptr + position * width + columns)
    for group in tl.static_range(HEADS // GROUP):
        place = (part * HEADS + group * GROUP + heads[:, None]) * width + columns
        x = head_rows(x_ptr + row * stride, place, row_scale, column_scale_ptr, bias_ptr, True)
        x = rotated(rms_normed(x, weight, eps, width), cos, sin, GROUP, HALF)
        places = (row // length) * HEADS + group * GROUP + heads
        if part == 0:
            largest = tl.maximum(tl.max(tl.abs(x), axis=1), 1e-12)
            tl.store(q_scale_ptr + places * total + position, largest / INT8_MAX)
        else:
            largest = tl.maximum(tl.load(k_largest_ptr + places), 1e-12)
        x = tl.floor(x * ((1.0 / largest) * INT8_MAX)[:, None] + 0.5)
        out = out_ptr + (places[:, None] * total + position) * width + columns
        tl.store(out, x.to(out_ptr.dtype.element_ty))


@triton.jit
def _scores(q, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Scores q · k as float32, plus MAGIC: added up on the bits of MAGIC, no integer has to be converted."""
    start = tl.full([ROWS, COLUMNS], MAGIC_BITS, tl.int32)
    return tl.dot(q, tl.trans(k), start, out_dtype=tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _attended(scores, factor, v, highest, total, result):
    """One tile of keys more: the rows' highest score (in powers of two), sum of probabilities, and values by them."""
    higher = tl.maximum(highest, (tl.max(scores, 1) - MAGIC) * factor)
    probabilities = tl.math.exp2(scores * factor[:, None] - (higher - RAISED + factor * MAGIC)[:, None])
    shrink = tl.math.exp2(highest - higher)
    total = total * shrink + tl.sum(probabilities, 1)
    result = tl.dot(probabilities.to(v.dtype), tl.trans(v), result * shrink[:, None])
    return higher, total, result


@triton.jit
def attention_kernel(
    q_rows, k_rows, v_columns, out_ptr, q_scale_ptr, k_largest_ptr, centre_ptr, unit_ptr, tokens, scale,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, STAGES: tl.constexpr,
    REST: tl.constexpr,
):  # fmt: skip
    """softmax(q · k · scale) · v, for ROWS queries of one head a program; REST: the last tile of keys is not whole.

    q_rows and k_rows describe (pictures · heads · tokens, WIDTH) in int8, v_columns (pictures · heads · WIDTH, tokens)
    in fp8: Hopper's products in fp8 want both inputs by the axis that is summed over.
    """
    first = tl.program_id(0) * ROWS
    place = tl.program_id(1)  # of picture and head
    q = q_rows.load([place * tokens + first, 0])
    rows = first + tl.arange(0, ROWS)
    # Scores in powers of two: exp2 is what the GPU has.
    factor = tl.load(q_scale_ptr + place * tokens + rows, mask=rows < tokens, other=0.0) * (scale * 1.4426950408889634)
    factor *= tl.maximum(tl.load(k_largest_ptr + place), 1e-12) / INT8_MAX
    highest = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, WIDTH], tl.float32)
    whole = tokens // TILE
    for tile in tl.range(0, whole, num_stages=STAGES):
        scores = _scores(q, k_rows.load([place * tokens + tile * TILE, 0]), ROWS, TILE)
        v = v_columns.load([place * WIDTH, tile * TILE])
        highest, total, result = _attended(scores, factor, v, highest, total, result)
    if REST:
        scores = _scores(q, k_rows.load([place * tokens + whole * TILE, 0]), ROWS, TILE)
        scores = tl.where((whole * TILE + tl.arange(0, TILE) < tokens)[None, :], scores, -1e30)
        v = v_columns.load([place * WIDTH, whole * TILE])
        highest, total, result = _attended(scores, factor, v, highest, total, result)
    each = tl.arange(0, WIDTH)
    channels = place.to(tl.int64) * WIDTH + each
    result = result / total[:, None] * tl.load(unit_ptr + channels)[None, :] + tl.load(centre_ptr + channels)[None, :]
    tokens_before = (place // HEADS).to(tl.int64) * tokens
    out = out_ptr + ((tokens_before + rows) * HEADS + place % HEADS)[:, None] * WIDTH + each[None, :]
    tl.store(out, result.to(out_ptr.dtype.element_ty), mask=(rows < tokens)[:, None])
