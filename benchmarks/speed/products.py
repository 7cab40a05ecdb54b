"""How fast this device multiplies at the model's shapes: the rates that a step's limit is worked out from."""

import contextlib
import math

import torch

from benchmarks.speed.device import BF16, DEVICE, seconds_of
from benchmarks.speed.run import Run
from fluxkit.sampling.linears import RowLinear, int8_fused_product
from fluxkit.sampling.ops import attention, quantize_rows

# Block M, N, K, warps, stages of the int8 product.
TILES = (
    (128, 128, 64, 4, 4), (128, 256, 128, 8, 3), (128, 256, 128, 8, 4), (256, 128, 128, 8, 3), (128, 128, 128, 4, 4),
    (128, 128, 128, 4, 3), (128, 256, 64, 8, 4),
)  # fmt: skip


def measure_rates(run: Run) -> None:
    """Each kind of product at the model's shapes, and attention."""
    flux, rates = run.flux, run.findings.rates
    width, long, image = flux.width, run.setting.tokens, run.setting.image_tokens
    shapes = {
        (long, width, 7 * width): flux.singles,
        (long, 5 * width, width): flux.singles,
        (image, width, 3 * width): flux.doubles,
        (image, width, width): flux.doubles,
        (image, width, 4 * width): flux.doubles,
        (image, 4 * width, width): flux.doubles,
    }
    for kind in ("bf16", "fp8", "fp8_one_scale", "int8"):
        with contextlib.suppress(RuntimeError, NotImplementedError, ValueError):
            times = {shape: product_seconds(*shape, kind) for shape in shapes}
            total = sum(times[shape] * count for shape, count in shapes.items())
            rates[kind] = sum(2.0 * math.prod(s) * count for s, count in shapes.items()) / total
            run.record(f"rate-{kind}", tflops=rates[kind] / 1e12, by_shape={
                "x".join(map(str, s)): 2.0 * math.prod(s) / t / 1e12 for s, t in times.items()
            })  # fmt: skip
    measure_attention(run)


def measure_attention(run: Run) -> None:
    """One picture's: by the backend that fluxkit lets PyTorch choose, by each, and with other layouts of its inputs."""
    flux, long = run.flux, run.setting.tokens
    work = 4.0 * long**2 * flux.width

    def parts_of(columns: int) -> list[torch.Tensor]:
        """q, k and v side by side in rows of so many widths."""
        rows = torch.randn(1, long, columns * flux.width, device=DEVICE, dtype=BF16)[..., : 3 * flux.width]
        return [one.unflatten(-1, (flux.heads, flux.head_width)).transpose(1, 2) for one in rows.chunk(3, dim=-1)]

    parts, wide = parts_of(3), parts_of(7)
    facts = {"chosen": work / seconds_of(lambda: attention(*parts)) / 1e12}
    facts["wide_rows"] = work / seconds_of(lambda: attention(*wide)) / 1e12
    by_head = [one.contiguous() for one in parts]
    facts["by_head"] = work / seconds_of(lambda: attention(*by_head)) / 1e12
    if DEVICE.type == "cuda":
        from torch.nn.attention import SDPBackend, sdpa_kernel

        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            with contextlib.suppress(RuntimeError), sdpa_kernel(backend):
                facts[backend.name] = work / seconds_of(lambda: attention(*parts)) / 1e12
    run.record("rate-attention", tflops=facts)


def product_seconds(rows: int, width: int, columns: int, kind: str) -> float:
    """How long one product takes."""
    x = torch.randn(rows, width, device=DEVICE, dtype=BF16)
    weight = torch.randn(columns, width, device=DEVICE, dtype=BF16)
    if kind == "fp8_one_scale":
        one, two = (quantize_rows(t, "fp8").values for t in (x, weight))
        unit = torch.ones((), device=DEVICE)
        return seconds_of(lambda: torch._scaled_mm(
            one, two.t(), scale_a=unit, scale_b=unit, out_dtype=BF16, use_fast_accum=True
        ))  # fmt: skip
    layer = RowLinear(weight, torch.zeros(columns, device=DEVICE, dtype=BF16), kind)  # type: ignore[arg-type]
    given = quantize_rows(x[None], kind)  # type: ignore[arg-type]
    if kind == "int8":
        return seconds_of(lambda: torch._int_mm(given.values[0], layer.weight.t()))
    return seconds_of(lambda: layer(given))


def best_tile(run: Run) -> tuple[int, ...]:
    """The fastest block sizes of the int8 product, whose rate counts from now on if it is higher."""
    width, tokens, rates = run.flux.width, run.setting.tokens, run.findings.rates
    found: dict[tuple[int, ...], float] = {}
    x = quantize_rows(torch.randn(tokens, width, device=DEVICE, dtype=BF16), "int8")
    layer = RowLinear(torch.randn(4 * width, width, device=DEVICE, dtype=BF16), None, "int8")
    for tile in TILES:
        with contextlib.suppress(Exception):
            seconds = seconds_of(
                lambda tile=tile: int8_fused_product(x.values, x.scale, layer.weight, layer.scale, None, tile)
            )
            found[tile] = 2.0 * tokens * width * 4 * width / seconds / 1e12
    run.record("int8-tiles", tflops={str(tile): rate for tile, rate in found.items()})
    best = max(found, key=lambda tile: found[tile])
    rates["int8"] = max(rates.get("int8", 0.0), found[best] * 1e12)
    return best
