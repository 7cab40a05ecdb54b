"""Linear layers with quantized weights, and the one product each of them makes.

Weights keep one scale an output row; inputs come as `Rows` of the layer's own kind (`ops.py`). No autograd.
"""

import functools
from typing import Any

import torch  # noqa: TID253 - a torch module's class; whoever imports this has torch loaded already

from fluxkit.sampling.ops import Kind, Rows, quantize_rows

# Block M, N, K, warps and stages: 956 TFLOP/s on an H100 at FLUX's shapes, the best of five; cuBLAS reached 752.
INT8_TILE = (128, 128, 64, 4, 4)
# 1,192 TFLOP/s on an H200 where the one above reached 1,035. It takes 96 KiB of shared memory, nearly all that GPUs of
# the RTX 30 and 40 series have.
HOPPER_INT8_TILE = (128, 128, 128, 4, 3)


def int8_tile(capability: tuple[int, int]) -> tuple[int, ...]:
    """The int8 product's tile on a GPU of that compute capability."""
    return HOPPER_INT8_TILE if capability == (9, 0) else INT8_TILE


class RowLinear(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """A linear layer that takes `Rows` of its kind and returns (batch, tokens, out) in bfloat16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, kind: Kind) -> None:
        """Quantize a weight.

        Args:
            weight: (out, in) in bfloat16, on the device where it stays.
            bias: (out,) in bfloat16.
            kind: what weights and inputs are quantized to.
        """
        super().__init__()
        self.kind = kind
        self.tile: tuple[int, ...] | None = None
        rows = quantize_rows(weight, kind, short_scale=True)
        self.register_buffer("weight", rows.values.contiguous())
        self.register_buffer("scale", None if rows.scale is None else rows.scale.view(1, -1).contiguous())
        self.register_buffer("bias", bias)

    def forward(self, rows: Rows) -> torch.Tensor:
        """The product, scaled back."""
        values = rows.values
        if self.kind == "bf16":
            return torch.nn.functional.linear(values, self.weight, self.bias)
        flat = values.reshape(-1, values.shape[-1])
        if self.kind == "fp8":
            result = fp8_product(flat, rows.scale, self.weight, self.scale.float(), self.bias)
        elif self.tile is None:
            result = int8_product(flat, rows.scale, self.weight, self.scale, self.bias)
        else:
            result = int8_fused_product(flat, rows.scale, self.weight, self.scale, self.bias, self.tile)
        return result.view(*values.shape[:-1], -1)

    def unscaled(self, rows: Rows) -> torch.Tensor:
        """The product in fp8 before scales and bias, (batch, tokens, out) in bfloat16: no larger than 3e9.

        Rounding to bfloat16 loses as much before scaling as after.
        """
        flat = rows.values.reshape(-1, rows.values.shape[-1])
        return fp8_bare_product(flat, self.weight).view(*rows.values.shape[:-1], -1)


def fp8_bare_product(x: Any, weight: Any) -> Any:
    """As `fp8_product` without scales and bias: the kernel for one scale a tensor is faster than that for one a row."""
    if x.is_cuda:
        one = _one(x.device)
        return torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)
    return (x.float() @ weight.float().t()).to(torch.bfloat16)


@functools.cache
def _one(device: torch.device) -> torch.Tensor:
    return torch.ones((), device=device)


def fp8_product(x: Any, x_scale: Any, weight: Any, scale: Any, bias: Any) -> Any:
    """(M, K) times (N, K) transposed, in fp8 with a scale a row; bfloat16 out.

    Needs compute capability 8.9 (torch._scaled_mm); elsewhere the same sum in float32, for tests.
    """
    if x.is_cuda:
        return torch._scaled_mm(
            x, weight.t(), scale_a=x_scale, scale_b=scale, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )
    result = (x.float() @ weight.float().t()) * x_scale * scale
    return (result if bias is None else result + bias).to(torch.bfloat16)


def int8_product(x: Any, x_scale: Any, weight: Any, scale: Any, bias: Any) -> Any:
    """As `fp8_product`, in int8, through torch._int_mm."""
    # _int_mm wants more than 16 rows.
    short = max(0, 17 - x.shape[0])
    padded = torch.nn.functional.pad(x, (0, 0, 0, short)) if short else x
    result = torch._int_mm(padded, weight.t())[: x.shape[0]].float() * x_scale * scale
    return (result if bias is None else result + bias).to(torch.bfloat16)


def int8_fused_product(x: Any, x_scale: Any, weight: Any, scale: Any, bias: Any, tile: tuple[int, ...]) -> Any:
    """As `int8_product`, in one Triton kernel.

    Args:
        x: (M, K).
        x_scale: (M, 1).
        weight: (N, K).
        scale: (1, N).
        bias: (N,) or None.
        tile: block sizes M, N, K, then warps and pipeline stages.
    """
    import triton

    from fluxkit.sampling.kernels import int8_matmul_kernel

    (rows, width), columns = x.shape, weight.shape[0]
    bm, bn, bk, warps, stages = tile
    if width % bk:
        return int8_product(x, x_scale, weight, scale, bias)
    out = torch.empty(rows, columns, dtype=torch.bfloat16, device=x.device)
    int8_matmul_kernel[(triton.cdiv(rows, bm) * triton.cdiv(columns, bn),)](
        x, weight, x_scale, scale, scale if bias is None else bias, out, rows, columns,
        K=width, BM=bm, BN=bn, BK=bk, GROUP=8, BIAS=bias is not None, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out
