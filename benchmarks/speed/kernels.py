"""The fused operations between the products: whether they are right on this device, and how fast."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.kernel_checks import ATTENTION_BOUND, BOUNDS, attention_errors, errors
from benchmarks.speed.device import BF16, DEVICE, graphed_seconds
from benchmarks.speed.pipeline import TEXT_TOKENS
from benchmarks.speed.run import Run
from fluxkit.sampling.fused_ops import FusedOps
from fluxkit.sampling.ops import Product, columns

Calls = dict[str, tuple[Callable[[FusedOps], object], int]]  # by name, with the bytes that each reads and writes
ONE_KERNEL = ("norm_modulate", "add_norm")  # the same for whole pieces and for any width


def check_kernels(run: Run) -> None:
    """Fused against plain operations on this device, relative error; `beyond` names what is wrong."""
    if DEVICE.type != "cuda":
        return run.record("check", skipped="needs a GPU; tests/sampling/test_kernels.py has the same without")
    for kind, bound in BOUNDS.items():
        found = errors(kind, run.flux.heads, run.flux.head_width, DEVICE)
        beyond = [name for name, error in found.items() if not error < bound]
        run.record(f"check-{kind}", beyond=beyond, relative_error=found)
    found = attention_errors(run.flux.heads, run.flux.head_width, DEVICE)
    beyond = [name for name, error in found.items() if not error < ATTENTION_BOUND]
    run.record("check-attention", beyond=beyond, relative_error=found)
    return None


@dataclass(frozen=True)
class Operands:
    """What the operations work on beside products, of one picture.

    Args:
        x: (1, tokens, width).
        parts: six modulations, (1, width) each.
        norm: of queries and keys.
        rotary: cosines and sines, (tokens, head width) each.
        heads: attention heads.
    """

    x: torch.Tensor
    parts: tuple[torch.Tensor, ...]
    norm: torch.nn.RMSNorm
    rotary: tuple[torch.Tensor, ...]
    heads: int


def kernels(run: Run) -> None:
    """Each fused operation at the model's shapes, microseconds and GB/s: rows in whole pieces, and as one block."""
    width, tokens, each = run.flux.width, run.setting.tokens, run.flux.head_width
    wide = torch.randn(1, tokens, 7 * width, device=DEVICE, dtype=BF16)
    x, gate = wide[:, :, :width].contiguous(), torch.randn(1, 6 * width, device=DEVICE, dtype=BF16)
    scale = torch.rand(tokens, 1, device=DEVICE)
    column, bias = (
        torch.rand(1, 7 * width, device=DEVICE).bfloat16(),
        torch.randn(7 * width, device=DEVICE).bfloat16(),
    )
    norm = torch.nn.RMSNorm(each, eps=1e-6, device=DEVICE, dtype=BF16)
    rotary = tuple(torch.randn(tokens, norm.weight.shape[0], device=DEVICE) for _ in range(2))
    given = Operands(x, gate.chunk(6, dim=1), norm, rotary, run.flux.heads)
    for form, product in (("finished", Product(wide)), ("scaled", Product(wide, scale, column, bias))):
        for name, (call, size) in _calls(given, product).items():
            facts = {}
            for way, pieces in (("pieces", True), ("block", False)):
                if not pieces and name in ONE_KERNEL:
                    continue
                seconds = graphed_seconds(functools.partial(call, FusedOps("fp8", whole_pieces=pieces)))
                facts[way] = [round(seconds * 1e6, 1), round(size / seconds / 1e9)]
            run.record(f"kernel-{name}-{form}", microseconds_and_gb_s=facts)
    qkv, rate = columns(Product(wide, scale, column, bias), 0, 3 * width), {}
    for way, ops in (("bf16", FusedOps("fp8")), ("quantized", FusedOps("fp8", quantized_attention=True))):
        call = functools.partial(ops.attend, [(qkv, norm, norm)], run.flux.heads, rotary)
        seconds = graphed_seconds(call, repeat=40)
        rate[way] = [round(seconds * 1e6, 1), round(4.0 * tokens**2 * width / seconds / 1e12)]
    run.record("kernel-attend", microseconds_and_tflops=rate)


def _calls(given: Operands, product: Product) -> Calls:
    """Every operation on a product (1, tokens, 7 · width), finished or still to be scaled."""
    x, parts, norm, rotary, heads = given.x, given.parts, given.norm, given.rotary, given.heads
    tokens, width = x.shape[1:]
    n, pixels_n = tokens * width, (tokens - TEXT_TOKENS) * width
    qkv, up, one = (columns(product, a * width, b * width) for a, b in ((0, 3), (3, 7), (0, 1)))
    one = one._replace(values=torch.randn_like(x) * 0.01)  # added in place a hundred times and more
    text, pixels = (_part(qkv, a, b) for a, b in ((0, TEXT_TOKENS), (TEXT_TOKENS, tokens)))
    image_up = _part(up, TEXT_TOKENS, tokens)
    return {
        "norm_modulate": (lambda ops: ops.norm_modulate(x, parts[0], parts[1]), 3 * n),
        "activate": (lambda ops: ops.activate(up, x), 15 * n),
        "activate_double": (lambda ops: ops.activate(image_up), 12 * pixels_n),
        "add_norm": (lambda ops: ops.add_norm(x, parts[2], one, parts[0], parts[1]), 7 * n),
        "rows": (lambda ops: ops.rows(x), 3 * n),
        "queries_single": (lambda ops: ops.queries([(qkv, norm, norm)], heads, rotary),
                           (8 if product.scale is None else 12) * n),
        "queries_double": (lambda ops: ops.queries([(text, norm, norm), (pixels, norm, norm)], heads, rotary), 12 * n),
    }  # fmt: skip


def _part(product: Product, start: int, stop: int) -> Product:
    """Some tokens of one picture's product."""
    scale = None if product.scale is None else product.scale[start:stop]
    return product._replace(values=product.values[:, start:stop], scale=scale)
