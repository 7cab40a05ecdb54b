"""The fused kernels against plain torch, in Triton's interpreter; skipped without one (CPU builds of torch).

Run with TRITON_INTERPRET=1, or on a GPU.
"""

import os
from typing import Any

import pytest

pytest.importorskip("triton")
if not os.environ.get("TRITON_INTERPRET"):
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)


def near(fused: Any, plain: Any, bound: float) -> None:
    fused, plain = fused.float(), plain.float()
    assert fused.shape == plain.shape
    assert float((fused - plain).norm() / plain.norm()) < bound


def back(rows: Any) -> Any:
    values = rows.values.float().reshape(-1, rows.values.shape[-1])
    return values if rows.scale is None else values * rows.scale


@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.01), ("int8", 0.02)])
def test_what_goes_into_a_product(kind: Any, bound: float) -> None:
    import torch

    from fluxkit.sampling.ops import FusedOps, PlainOps

    plain, fused = PlainOps(kind), FusedOps(kind)
    x, wide = torch.randn(2, 5, 96).bfloat16(), torch.randn(2, 5, 400).bfloat16()
    scale, shift = torch.randn(2, 6 * 96).bfloat16().chunk(6, dim=1)[:2]
    near(back(fused.norm_modulate(x, scale, shift)), back(plain.norm_modulate(x, scale, shift)), bound)
    left, up = torch.randn(2, 5, 48).bfloat16(), wide[:, :, 144:]
    near(back(fused.activate(up, left)), back(plain.activate(up, left)), bound)
    near(back(fused.activate(up)), back(plain.activate(up)), bound)
    near(back(fused.rows(wide[:, 2:])), back(plain.rows(wide[:, 2:])), bound)


@pytest.mark.parametrize("heads", [3, 4])
def test_queries_of_one_stream_and_of_two(heads: int) -> None:
    import torch

    from fluxkit.sampling.ops import FusedOps, PlainOps

    width, plain, fused = 16, PlainOps("bf16"), FusedOps("bf16")
    norms = [torch.nn.RMSNorm(width, eps=1e-6).bfloat16().requires_grad_(False) for _ in range(4)]
    for norm in norms:
        norm.weight.normal_()
    rotary = tuple(torch.randn(7, width // 2).repeat_interleave(2, dim=1) for _ in range(2))
    text, image = (torch.randn(2, count, 3 * heads * width).bfloat16() for count in (3, 4))
    streams = [(text, norms[0], norms[1]), (image, norms[2], norms[3])]
    for one, two in zip(fused.queries(streams, heads, rotary), plain.queries(streams, heads, rotary), strict=True):  # type: ignore[arg-type]
        near(one, two, 0.01)
    wide = torch.randn(2, 7, 3 * heads * width + 32).bfloat16()
    other, qkv = wide.clone(), 3 * heads * width
    made = fused.queries([(wide[:, :, :qkv], norms[0], norms[1])], heads, rotary)  # type: ignore[arg-type]
    expected = plain.queries([(other[:, :, :qkv], norms[0], norms[1])], heads, rotary)  # type: ignore[arg-type]
    for one, two in zip(made, expected, strict=True):
        near(one, two, 0.01)
    assert torch.equal(wide[:, :, qkv:], other[:, :, qkv:]), "the feed-forward's half of the rows is not touched"


def test_the_int8_product() -> None:
    import torch

    from fluxkit.sampling.linears import RowLinear
    from fluxkit.sampling.ops import quantize_rows

    x, weight, bias = torch.randn(2, 50, 128).bfloat16(), torch.randn(80, 128).bfloat16(), torch.randn(80).bfloat16()
    layer, rows = RowLinear(weight, bias, "int8"), quantize_rows(x, "int8")
    plain = layer(rows)
    layer.tile = (16, 32, 32, 4, 2)
    near(layer(rows), plain, 0.005)
    near(plain, torch.nn.functional.linear(x, weight, bias), 0.03)


def test_a_gated_change_is_added_in_place() -> None:
    import torch

    from fluxkit.sampling.ops import FusedOps, PlainOps

    x, change = torch.randn(2, 5, 96).bfloat16(), torch.randn(2, 5, 96).bfloat16()
    gate = torch.randn(2, 3 * 96).bfloat16().chunk(3, dim=1)[1]
    expected = PlainOps("bf16").add_gated(x, gate, change)
    assert FusedOps("bf16").add_gated(x, gate, change) is x
    near(x, expected, 0.01)
