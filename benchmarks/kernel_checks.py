"""Each fused operation against plain ones: on a GPU in `benchmarks/sampling.py`, in Triton's interpreter in a test.

The interpreter knows nothing of layouts, vectors and warps; a kernel that is right there may still be wrong on a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch

from fluxkit.sampling.fused_ops import FusedOps
from fluxkit.sampling.linears import RowLinear
from fluxkit.sampling.ops import Kind, PlainOps, Product, Rows, columns, quantize_rows

BF16 = torch.bfloat16
# Relative Euclidean distances that rounding explains; a wrong kernel is off by more. (In fp8 the interpreter is off by
# 0.04 on equal numbers already: it rounds 2% of them in another way than torch.)
BOUNDS: dict[Kind, float] = {"bf16": 0.01, "fp8": 0.06, "int8": 0.03}
# 0.018 where all tokens are looked at nearly alike, 0.048 where few are; the interpreter's own rounding makes it 0.1.
ATTENTION_BOUND = 0.06
TEXT, IMAGE = 16, 48
Made = tuple[torch.Tensor, ...]
Call = Callable[[PlainOps, int], Made]  # 0 and plain operations: finished products; 1: still to be scaled


def errors(kind: Kind, heads: int, each: int, device: torch.device) -> dict[str, float]:
    """Relative errors by operation; `…_block` is the kernel for any width where there are two.

    Args:
        kind: of the products.
        heads: attention heads.
        each: width of a head.
        device: a GPU, or the CPU with Triton's interpreter.
    """
    found = {}
    for name, (call, ways) in _calls(heads, each, device).items():
        for form in (0, 1) if kind == "fp8" and name not in ("norm_modulate", "rows") else (0,):
            expected = call(PlainOps(kind), form)
            for pieces in ways:
                made = call(FusedOps(kind, whole_pieces=pieces), form)
                worst = max(_error(one, two) for one, two in zip(made, expected, strict=True))
                found[f"{name}{'_scaled' if form else ''}{'' if pieces else '_block'}"] = worst
    return found


def _calls(heads: int, each: int, device: torch.device) -> dict[str, tuple[Call, tuple[bool, ...]]]:
    """Every operation on two pictures, and whether there are kernels for whole pieces, for any width, or both."""
    width, tokens = heads * each, TEXT + IMAGE
    both, one = (True, False), (True,)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=BF16)

    x, left, modulation = draw(2, tokens, width), draw(2, tokens, width), draw(2, 6 * width)
    parts = modulation.chunk(6, dim=1)
    wide, text, image = (_product(draw(2, n, 7 * width)) for n in (tokens, TEXT, IMAGE))
    norms = [torch.nn.RMSNorm(each, eps=1e-6, device=device, dtype=BF16).requires_grad_(False) for _ in range(4)]
    for norm in norms:
        norm.weight.normal_()
    rotary = tuple(torch.randn(tokens, each // 2, device=device).repeat_interleave(2, dim=1) for _ in range(2))

    def given(ops: PlainOps, form: int, product: Product, start: int, stop: int) -> Product:
        """Some columns: with their scales for a kernel that applies them, else finished; a copy to work on."""
        found = columns(product, start * width, stop * width)
        fused = form and isinstance(ops, FusedOps)
        if not fused:
            found = Product(_finished(found) if form else found.values)
        return found._replace(values=found.values.clone())

    def apart(ops: PlainOps, form: int, product: Product) -> Product:
        """q, k and v as they lie in a single block's product: rows with the feed-forward's half between them."""
        found = given(ops, form, product, 0, 7)
        return columns(found, 0, 3 * width)

    def activate(ops: PlainOps, form: int) -> Made:
        return _numbers(ops.activate(columns(given(ops, form, wide, 0, 7), 3 * width, 7 * width), left))

    def activate_alone(ops: PlainOps, form: int) -> Made:
        return _numbers(ops.activate(given(ops, form, wide, 3, 7)))

    def queries_single(ops: PlainOps, form: int) -> Made:
        return ops.queries([(apart(ops, form, wide), norms[0], norms[1])], heads, rotary)

    def queries_double(ops: PlainOps, form: int) -> Made:
        streams = [given(ops, form, one, 0, 3) for one in (text, image)]
        pairs = [(streams[0], norms[0], norms[1]), (streams[1], norms[2], norms[3])]
        return ops.queries(pairs, heads, rotary)

    def add_norm(ops: PlainOps, form: int) -> Made:
        change = given(ops, form, wide, 0, 1)
        whole, rows = ops.add_norm(x.clone(), parts[2], change, parts[0], parts[1])
        return whole, *_numbers(rows)

    return {
        "norm_modulate": (lambda ops, _: _numbers(ops.norm_modulate(x, parts[0], parts[1])), one),
        "rows": (lambda ops, _: _numbers(ops.rows(left[:, TEXT:])), both),
        "activate": (activate, both),
        "activate_alone": (activate_alone, both),
        "queries_single": (queries_single, both),
        "queries_double": (queries_double, both),
        "add_norm": (add_norm, one),
    }


def attention_errors(heads: int, each: int, device: torch.device, long: int = 4608) -> dict[str, float]:
    """Relative errors of quantized attention beside attention in bf16: two streams, one, one with a tile cut short.

    `even` looks at all tokens nearly alike, as random weights do, `few` mostly at few of them.

    Args:
        heads: attention heads.
        each: width of a head.
        device: a GPU, or the CPU with Triton's interpreter.
        long: tokens of text and picture.
    """
    found = {}
    for name, sharp in (("even", 1.0), ("few", 2.5)):
        for form, lengths in (("double", (77, long - 77)), ("single", (long,)), ("cut", (long - 50,))):
            left, plain = _attention_streams(heads, each, lengths, sharp, device)
            made = FusedOps("fp8", quantized_attention=True).attend(left, heads, _angles(lengths, each, device))
            expected = PlainOps("fp8").attend(plain, heads, _angles(lengths, each, device))
            found[f"{form}_{name}"] = _error(made, expected)
    return found


def _attention_streams(
    heads: int, each: int, lengths: tuple[int, ...], sharp: float, device: torch.device
) -> tuple[list[tuple[Product, Any, Any]], ...]:
    """[q, k, v] rows of two pictures from layers in fp8: still to be scaled, and finished; scores spread by sharp²."""
    width = heads * each
    left, finished = [], []
    for length in lengths:
        weight = (torch.randn(3 * width, width, device=device) / width**0.5).bfloat16()
        layer = RowLinear(weight, torch.randn(3 * width, device=device).bfloat16() * 0.1, "fp8")
        rows = quantize_rows(torch.randn(2, length, width, device=device, dtype=BF16), "fp8")
        norm = torch.nn.RMSNorm(each, eps=1e-6, device=device, dtype=BF16).requires_grad_(False)
        norm.weight.fill_(sharp)
        left.append((Product(layer.unscaled(rows), rows.scale, layer.scale, layer.bias), norm, norm))
        finished.append((Product(layer(rows)), norm, norm))
    return left, finished


def _angles(lengths: tuple[int, ...], each: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for so many tokens, two axes of a picture."""
    places = torch.arange(sum(lengths), device=device)[:, None]
    angles = torch.where(torch.arange(each // 2, device=device) % 2 == 0, places // 64, places % 64) * 0.1
    return tuple(one.repeat_interleave(2, dim=1).float() for one in (angles.cos(), angles.sin()))  # type: ignore[return-value]


def _product(values: torch.Tensor) -> Product:
    """A product that is still to be scaled."""
    batch, tokens, width = values.shape
    scale, column = (torch.rand(*shape, device=values.device) + 0.5 for shape in ((batch * tokens, 1), (1, width)))
    bias = torch.randn(width, device=values.device)
    return Product(values, scale, column.to(BF16), bias.to(BF16))


def _finished(product: Product) -> torch.Tensor:
    values, scale, column, bias = product
    assert scale is not None
    assert column is not None
    assert bias is not None
    flat = values.float().reshape(-1, values.shape[-1]) * scale * column.float() + bias.float()
    return flat.view(values.shape).to(BF16)


def _numbers(rows: Rows) -> Made:
    """Rows as numbers again."""
    values = rows.values.float().reshape(-1, rows.values.shape[-1])
    return (values if rows.scale is None else values * rows.scale,)


def _error(made: torch.Tensor, expected: torch.Tensor) -> float:
    made, expected = made.float(), expected.float()
    assert made.shape == expected.shape
    return float((made - expected).norm() / expected.norm())
