"""Triton kernels for what lies between FLUX's matrix products: normalize, modulate, activate, rotate, quantize.

Each reads its input once and writes what the next product takes. PyTorch's own operations move the same rows through
memory four to eight times; `torch.compile` fuses them too, but needs minutes for what Triton builds in seconds.
Import this only on a GPU (or with TRITON_INTERPRET=1); `ops.py` has the same functions in plain torch.
"""

# mypy: ignore-errors
import triton
import triton.language as tl

FP8_MAX = tl.constexpr(448.0)
INT8_MAX = tl.constexpr(127.0)


@triton.jit
def _store_row(values, mask, offsets, out_ptr, scale_ptr, row, KIND: tl.constexpr):
    """One row of the output: 0 as it is, 1 in fp8, 2 in int8, these with the row's scale."""
    if KIND == 0:
        tl.store(out_ptr + offsets, values.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        values = values.to(tl.bfloat16).to(tl.float32)  # what the plain path would quantize
        largest = tl.maximum(tl.max(tl.abs(tl.where(mask, values, 0.0)), axis=0), 1e-12)
        if KIND == 1:
            tl.store(scale_ptr + row, largest / FP8_MAX)
            quantized = tl.clamp(values * (FP8_MAX / largest), -448.0, 448.0)
        else:
            tl.store(scale_ptr + row, largest / INT8_MAX)
            quantized = tl.floor(values * (INT8_MAX / largest) + 0.5)
        tl.store(out_ptr + offsets, quantized.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _finish(x, row, columns, mask, row_scale_ptr, column_scale_ptr, bias_ptr, SCALED: tl.constexpr):
    """The numbers of a product: its scales and bias applied, where that was left to the reader."""
    if SCALED:
        scale = tl.load(column_scale_ptr + columns, mask=mask, other=0.0, eviction_policy="evict_last")
        bias = tl.load(bias_ptr + columns, mask=mask, other=0.0, eviction_policy="evict_last")
        x = x * (tl.load(row_scale_ptr + row) * scale.to(tl.float32)) + bias.to(tl.float32)
    return x


@triton.jit
def _modulated(x, mask, scale_ptrs, shift_ptrs, D: tl.constexpr):
    """A row's LayerNorm (no weights, eps 1e-6), times 1 + scale, plus shift; x is 0 outside the mask."""
    centred = tl.where(mask, x - tl.sum(x, axis=0) / D, 0.0)
    normed = centred * (1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / D + 1e-6))
    scale = tl.load(scale_ptrs, mask=mask, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptrs, mask=mask, other=0.0).to(tl.float32)
    return normed * (1.0 + scale) + shift


@triton.jit
def norm_modulate_kernel(
    x_ptr, scale_ptr, shift_ptr, out_ptr, out_scale_ptr, length, mod_stride,
    D: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr
):  # fmt: skip
    """LayerNorm (no weights, eps 1e-6), then x · (1 + scale) + shift with the picture's own scale and shift."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < D
    x = tl.load(x_ptr + row * D + columns, mask=mask, other=0.0).to(tl.float32)
    moved = (row // length) * mod_stride + columns
    normed = _modulated(x, mask, scale_ptr + moved, shift_ptr + moved, D)
    _store_row(normed, mask, row * D + columns, out_ptr, out_scale_ptr, row, KIND)


@triton.jit
def activate_kernel(
    left_ptr, right_ptr, out_ptr, out_scale_ptr, row_scale_ptr, column_scale_ptr, bias_ptr, left_stride, right_stride,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """One row of `[left, gelu(right)]`; LEFT or RIGHT may be 0."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < LEFT + RIGHT
    values = tl.zeros((BLOCK,), dtype=tl.float32)
    if LEFT > 0:
        values = tl.load(left_ptr + row * left_stride + columns, mask=columns < LEFT, other=0.0).to(tl.float32)
    if RIGHT > 0:
        inside = (columns >= LEFT) & mask
        x = tl.load(right_ptr + row * right_stride + columns - LEFT, mask=inside, other=0.0).to(tl.float32)
        x = _finish(x, row, columns - LEFT, inside, row_scale_ptr, column_scale_ptr, bias_ptr, SCALED)
        # 0.5·x·(1 + tanh(u)) = x·sigmoid(2u)
        activated = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
        values = tl.where(inside, activated, values)
    _store_row(values, mask, row * (LEFT + RIGHT) + columns, out_ptr, out_scale_ptr, row, KIND)


@triton.jit
def rms_normed(x, weight, eps, WIDTH: tl.constexpr):
    """RMSNorm of every row of x (rows, WIDTH); weight (1, WIDTH)."""
    return x * (1.0 / tl.sqrt(tl.sum(x * x, axis=1) / WIDTH + eps))[:, None] * weight


@triton.jit
def rotated(x, cos, sin, ROWS: tl.constexpr, HALF: tl.constexpr):
    """Pairs of neighbours of x (ROWS, 2 · HALF) turned; cos and sin have each value twice, as diffusers keeps them."""
    real, imaginary = tl.split(tl.reshape(x, (ROWS, HALF, 2)))
    turned = tl.reshape(tl.join(-imaginary, real), (ROWS, 2 * HALF))
    return x * cos + turned * sin


@triton.jit
def rotate_kernel(
    x_ptr, out_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, row_scale_ptr, column_scale_ptr, bias_ptr,
    length, out_length, offset, x_stride, out_stride, eps,
    HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    """RMSNorm and rotary embedding of q and k in a row [q, k, v], in place or into the joint buffer of both streams.

    Program (row, part): part 0 is q, 1 is k, 2 is v (scaled and copied only; left out where it is finished in place).
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    width: tl.constexpr = 2 * HALF
    position = row % length + offset
    x_row = x_ptr + row * x_stride + part * HEADS * width
    out_row = out_ptr + ((row // length) * out_length + position) * out_stride + part * HEADS * width
    # Whole heads in the order in which they lie: loads of every other number took nine times as long (36 of 117 ms a
    # step on an H100).
    heads = tl.arange(0, BLOCK)[:, None]
    columns = tl.arange(0, width)[None, :]
    mask = (heads < HEADS) & (columns < width)
    wide = tl.load(x_row + heads * width + columns, mask=mask, other=0.0).to(tl.float32)
    place = part * HEADS * width + heads * width + columns
    wide = _finish(wide, row, place, mask, row_scale_ptr, column_scale_ptr, bias_ptr, SCALED)
    if part == 2:
        tl.store(out_row + heads * width + columns, wide.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        weight_ptr = q_weight_ptr if part == 0 else k_weight_ptr
        wide = rms_normed(wide, tl.load(weight_ptr + columns).to(tl.float32), eps, width)
        cos = tl.load(cos_ptr + position * width + columns)
        sin = tl.load(sin_ptr + position * width + columns)
        result = rotated(wide, cos, sin, BLOCK, HALF)
        tl.store(out_row + heads * width + columns, result.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def add_norm_kernel(
    x_ptr, gate_ptr, change_ptr, row_scale_ptr, column_scale_ptr, bias_ptr, scale_ptr, shift_ptr,
    out_ptr, out_scale_ptr, length, gate_stride, mod_stride,
    D: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """X += gate · change with the picture's own gate, and `norm_modulate_kernel` of the sum while it is at hand."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = columns < D
    picture = row // length
    x = tl.load(x_ptr + row * D + columns, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + picture * gate_stride + columns, mask=mask, other=0.0).to(tl.float32)
    change = tl.load(change_ptr + row * D + columns, mask=mask, other=0.0).to(tl.float32)
    change = _finish(change, row, columns, mask, row_scale_ptr, column_scale_ptr, bias_ptr, SCALED)
    rounded = (x + gate * change).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row * D + columns, rounded, mask=mask)
    moved = picture * mod_stride + columns
    normed = _modulated(rounded.to(tl.float32), mask, scale_ptr + moved, shift_ptr + moved, D)
    _store_row(normed, mask, row * D + columns, out_ptr, out_scale_ptr, row, KIND)


@triton.jit
def group_moments_kernel(
    x_ptr, mean_ptr, spread_ptr, length,
    C: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of some pixels of one picture, channels last: each group's mean and its sum of squared distances from that."""
    tile, picture = tl.program_id(0), tl.program_id(1)
    each: tl.constexpr = C // GROUPS
    pixels = tile * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, C)[None, :]
    x = tl.load(x_ptr + (picture.to(tl.int64) * length + pixels) * C + columns, mask=pixels < length, other=0.0)
    x = x.to(tl.float32)
    count = min(length - tile * ROWS, ROWS) * each
    mean = tl.sum(tl.reshape(tl.sum(x, axis=0), (GROUPS, each)), axis=1) / count
    spread = tl.reshape(tl.broadcast_to(mean[:, None], (GROUPS, each)), (1, C))
    centred = tl.where(pixels < length, x - spread, 0.0)
    squares = tl.sum(tl.reshape(tl.sum(centred * centred, axis=0), (GROUPS, each)), axis=1)
    place = (picture * tl.num_programs(0) + tile) * GROUPS + tl.arange(0, GROUPS)
    tl.store(mean_ptr + place, mean)
    tl.store(spread_ptr + place, squares)


@triton.jit
def scale_silu_kernel(x_ptr, scale_ptr, shift_ptr, out_ptr, length, C: tl.constexpr, ROWS: tl.constexpr):
    """silu(x · scale + shift) with the picture's own scale and shift for each channel, channels last."""
    tile, picture = tl.program_id(0), tl.program_id(1)
    pixels = tile * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, C)[None, :]
    mask = (pixels < length) & (columns < C)
    offsets = (picture.to(tl.int64) * length + pixels) * C + columns
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    x = x * tl.load(scale_ptr + picture * C + columns) + tl.load(shift_ptr + picture * C + columns)
    tl.store(out_ptr + offsets, (x * tl.sigmoid(x)).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def int8_matmul_kernel(
    a_ptr, b_ptr, a_scale_ptr, b_scale_ptr, bias_ptr, out_ptr, M, N,
    K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """(M, K) int8 times (N, K) int8, transposed, with a scale a row of each, into bfloat16.

    cuBLAS writes int32 and scales in another kernel; here the scales are applied on the way out.
    """
    program = tl.program_id(0)
    rows, columns = tl.cdiv(M, BM), tl.cdiv(N, BN)
    # Programs that run together share tiles in L2 (the Triton tutorial's grouped order).
    group = program // (GROUP * columns)
    first = group * GROUP
    height = min(rows - first, GROUP)
    m = first + (program % (GROUP * columns)) % height
    n = (program % (GROUP * columns)) // height
    offs_m = m * BM + tl.arange(0, BM)
    offs_n = n * BN + tl.arange(0, BN)
    offs_k = tl.arange(0, BK)
    a = a_ptr + (offs_m % M).to(tl.int64)[:, None] * K + offs_k[None, :]
    b = b_ptr + (offs_n % N).to(tl.int64)[None, :] * K + offs_k[:, None]
    total = tl.zeros((BM, BN), dtype=tl.int32)
    for _ in range(0, K, BK):  # K is a multiple of BK: ops.py sees to it
        total = tl.dot(tl.load(a), tl.load(b), total, out_dtype=tl.int32)
        a += BK
        b += BK
    a_scale = tl.load(a_scale_ptr + offs_m, mask=offs_m < M, other=0.0)[:, None]
    b_scale = tl.load(b_scale_ptr + offs_n, mask=offs_n < N, other=0.0)[None, :]
    result = total.to(tl.float32) * a_scale * b_scale
    if BIAS:
        result += tl.load(bias_ptr + offs_n, mask=offs_n < N, other=0.0).to(tl.float32)[None, :]
    out = out_ptr + offs_m.to(tl.int64)[:, None] * N + offs_n[None, :]
    tl.store(out, result.to(tl.bfloat16), mask=(offs_m < M)[:, None] & (offs_n < N)[None, :])
