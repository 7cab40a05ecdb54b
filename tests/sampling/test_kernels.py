"""The fused kernels against plain torch, in Triton's interpreter: test_interpreted.py runs this file so, or you do with
TRITON_INTERPRET=1; or on a GPU.
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


@pytest.mark.parametrize("pieces", [True, False])
@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.01), ("int8", 0.02)])
def test_what_goes_into_a_product(kind: Any, bound: float, pieces: bool) -> None:
    import torch

    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import PlainOps, Product

    plain, fused = PlainOps(kind), FusedOps(kind, whole_pieces=pieces)
    x, wide = torch.randn(2, 5, 96).bfloat16(), torch.randn(2, 5, 400).bfloat16()
    scale, shift = torch.randn(2, 6 * 96).bfloat16().chunk(6, dim=1)[:2]
    near(back(fused.norm_modulate(x, scale, shift)), back(plain.norm_modulate(x, scale, shift)), bound)
    left, up = torch.randn(2, 5, 48).bfloat16(), wide[:, :, 144:]
    near(back(fused.activate(Product(up), left)), back(plain.activate(Product(up), left)), bound)
    near(back(fused.activate(Product(up))), back(plain.activate(Product(up))), bound)
    near(back(fused.rows(wide[:, 2:])), back(plain.rows(wide[:, 2:])), bound)


@pytest.mark.parametrize(("heads", "pieces"), [(3, True), (4, True), (24, True), (3, False), (4, False)])
def test_queries_of_one_stream_and_of_two(heads: int, pieces: bool) -> None:
    import torch

    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import PlainOps, Product

    width, plain, fused = 16, PlainOps("bf16"), FusedOps("bf16", whole_pieces=pieces)
    norms = [torch.nn.RMSNorm(width, eps=1e-6).bfloat16().requires_grad_(False) for _ in range(4)]
    for norm in norms:
        norm.weight.normal_()
    rotary = tuple(torch.randn(7, width // 2).repeat_interleave(2, dim=1) for _ in range(2))
    text, image = (torch.randn(2, count, 3 * heads * width).bfloat16() for count in (3, 4))
    streams = [(Product(text), norms[0], norms[1]), (Product(image), norms[2], norms[3])]
    for one, two in zip(fused.queries(streams, heads, rotary), plain.queries(streams, heads, rotary), strict=True):  # type: ignore[arg-type]
        near(one, two, 0.01)
    wide = torch.randn(2, 7, 3 * heads * width + 32).bfloat16()
    other, qkv = wide.clone(), 3 * heads * width
    made = fused.queries([(Product(wide[:, :, :qkv]), norms[0], norms[1])], heads, rotary)  # type: ignore[arg-type]
    expected = plain.queries([(Product(other[:, :, :qkv]), norms[0], norms[1])], heads, rotary)  # type: ignore[arg-type]
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


def unfinished(values: Any) -> tuple[Any, Any]:
    """A product with scales and bias still to be applied, and the finished one, rounded only at the end."""
    import torch

    from fluxkit.sampling.ops import Product

    batch, tokens, width = values.shape
    scale, column, bias = torch.rand(batch * tokens, 1) + 0.5, torch.rand(1, width) + 0.5, torch.randn(width)
    column, bias = column.bfloat16(), bias.bfloat16()
    whole = values.float().view(-1, width) * scale * column.float() + bias.float()
    return Product(values, scale, column, bias), Product(whole.view(values.shape).bfloat16())


@pytest.mark.parametrize(("heads", "pieces"), [(3, True), (4, True), (3, False), (4, False)])
def test_consumers_apply_the_scales_that_a_product_left_out(heads: int, pieces: bool) -> None:
    import torch

    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import PlainOps, columns

    width, plain, fused = 16, PlainOps("bf16"), FusedOps("bf16", whole_pieces=pieces)
    inner = heads * width
    product, finished = unfinished(torch.randn(2, 7, 7 * inner).bfloat16())
    left = torch.randn(2, 7, inner).bfloat16()
    up, up_finished = (columns(one, 3 * inner, 7 * inner) for one in (product, finished))
    near(fused.activate(up, left).values, plain.activate(up_finished, left).values, 0.01)
    near(fused.activate(up).values, plain.activate(up_finished).values, 0.01)
    x, gate = torch.randn(2, 7, inner).bfloat16(), torch.randn(2, 3 * inner).bfloat16().chunk(3, dim=1)[1]
    change, change_finished = (columns(one, 0, inner) for one in (product, finished))
    for kind, bound in (("bf16", 0.01), ("int8", 0.02)):
        scale, shift = torch.randn(2, 6 * inner).bfloat16().chunk(6, dim=1)[2:4]
        for given in (change, change_finished):
            x = torch.randn(2, 7, inner).bfloat16()
            whole, rows = PlainOps(kind).add_norm(x, gate, change_finished, scale, shift)  # type: ignore[arg-type]
            made, fused_rows = FusedOps(kind).add_norm(x, gate, given, scale, shift)  # type: ignore[arg-type]
            near(made, whole, 0.01)
            near(back(fused_rows), back(rows), bound)
    norms = [torch.nn.RMSNorm(width, eps=1e-6).bfloat16().requires_grad_(False) for _ in range(4)]
    rotary = tuple(torch.randn(7, width // 2).repeat_interleave(2, dim=1) for _ in range(2))
    qkv, qkv_finished = (columns(one, 0, 3 * inner) for one in (product, finished))
    expected = plain.queries([(qkv_finished, norms[0], norms[1])], heads, rotary)  # type: ignore[arg-type]
    for one, two in zip(fused.queries([(qkv, norms[0], norms[1])], heads, rotary), expected, strict=True):  # type: ignore[arg-type]
        near(one, two, 0.01)
    parts = [unfinished(torch.randn(2, count, 3 * inner).bfloat16()) for count in (3, 4)]
    streams = [
        [(part[which], *norms[2 * number : 2 * number + 2]) for number, part in enumerate(parts)] for which in (0, 1)
    ]
    expected = plain.queries(streams[1], heads, rotary)  # type: ignore[arg-type]
    for one, two in zip(fused.queries(streams[0], heads, rotary), expected, strict=True):  # type: ignore[arg-type]
        near(one, two, 0.01)


@pytest.mark.parametrize("kind", ["fp8", "int8"])
@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # to infinity, whose inverse is 0
def test_rows_in_pieces_are_quantized_as_rows_in_one_block(kind: Any) -> None:
    import torch

    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import Product

    limit = {"fp8": 448.0, "int8": 127.0}[kind]
    pieces, block = FusedOps(kind), FusedOps(kind, whole_pieces=False)
    for left in (torch.randn(2, 5, 48).bfloat16(), torch.randn(2, 5, 64).bfloat16() * 1e-6, torch.zeros(1, 2, 48)):
        one, two = pieces.rows(left.bfloat16()), block.rows(left.bfloat16())
        assert one.values.float().equal(two.values.float())
        assert one.scale.equal(two.scale)  # type: ignore[union-attr]
    up = torch.randn(2, 5, 192).bfloat16() * torch.logspace(-3, 3, 192)  # as far as GELU goes, both ways
    for left in (None, torch.randn(2, 5, 48).bfloat16()):
        one, two = pieces.activate(Product(up.bfloat16()), left), block.activate(Product(up.bfloat16()), left)
        assert float(one.values.float().abs().max()) == limit
        near(back(one), back(two), 0.05)
    uneven = torch.randn(2, 5, 80).bfloat16()  # five pieces: one block
    assert pieces.rows(uneven).values.float().equal(block.rows(uneven).values.float())


def test_fp8_scaled_later_is_fp8_scaled_at_once() -> None:
    import torch

    from fluxkit.sampling.linears import RowLinear
    from fluxkit.sampling.ops import quantize_rows

    x, weight, bias = torch.randn(2, 9, 64).bfloat16(), torch.randn(80, 64).bfloat16() * 3, torch.randn(80).bfloat16()
    layer, rows = RowLinear(weight, bias, "fp8"), quantize_rows(x, "fp8")
    bare = layer.unscaled(rows).float().view(18, 80)
    near((bare * rows.scale * layer.scale.float() + bias.float()).view(2, 9, 80), layer(rows), 0.005)
    near(layer(rows), torch.nn.functional.linear(x, weight, bias), 0.06)


@pytest.mark.parametrize(("channels", "groups", "offset"), [(64, 32, 0.0), (32, 4, 50.0), (512, 32, 0.0)])
def test_group_norm_and_silu_with_channels_last(channels: int, groups: int, offset: float) -> None:
    import torch

    from fluxkit.sampling.fast_vae import fused_norm_silu

    norm = torch.nn.GroupNorm(groups, channels, eps=1e-6)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        x = torch.randn(2, channels, 19, 29) * 3 + offset  # the last tile is not full
        fused = fused_norm_silu(x, norm)
        assert fused.is_contiguous(memory_format=torch.channels_last)
        near(fused, torch.nn.functional.silu(norm(x)), 1e-4)


def test_a_quick_vae_decodes_the_same_picture(tiny_flux: Any) -> None:
    import torch

    from fluxkit.sampling.fast_vae import NormSilu, quicken
    from fluxkit.sampling.vae import load_vae

    vae = load_vae(tiny_flux / "vae").float()
    latents = torch.randn(1, vae.config.latent_channels, 6, 8)
    with torch.no_grad():
        plain = vae.decode(latents)[0]
        quicken(vae, fused=True)
        quicken(vae, fused=True)
        near(vae.decode(latents)[0], plain, 1e-3)
    assert [one.fused for one in vae.modules() if isinstance(one, NormSilu)] == [True] * 21


class Case:
    """The tiny model's weights, and inputs of two pictures; each step of each has its own modulation.

    Args:
        base: of the tiny model.
        steps: how many.
        calm: pairs of (step, picture) at which little differs from the step before.
    """

    def __init__(self, base: Any, steps: int, calm: tuple[tuple[int, int], ...] = ()) -> None:
        import torch
        from diffusers import FluxTransformer2DModel

        from fluxkit.sampling.fastflux import StepRows, adaln_names

        given = FluxTransformer2DModel.from_pretrained(base, subfolder="transformer", dtype=torch.bfloat16)
        self.weights, self.config = given.state_dict(), dict(given.config)
        names = adaln_names(self.config)
        widths = tuple(self.weights[f"{name}.linear.weight"].shape[0] for name in names)
        values = torch.randn(steps, 2, sum(widths)).bfloat16() * 0.3
        for step, picture in calm:
            values[step, picture] = values[step - 1, picture] * 1.01
        self.rows = StepRows(tuple(names), widths, values)
        self.tokens, self.text = 12, 5
        self.hidden = torch.randn(2, self.tokens, self.config["in_channels"]).bfloat16()
        self.prompt = torch.randn(2, self.text, self.config["joint_attention_dim"]).bfloat16()

    def steps(self, kind: Any, ops: Any, cache: Any = None) -> Any:
        """Every step's result, (steps, pictures, tokens, channels)."""
        import torch

        from fluxkit.sampling.fastflux import FastFlux

        model = FastFlux(self.config, self.weights.__getitem__, kind, ops)
        model.first_block_cache = cache
        model.begin(self.rows)
        at = torch.arange(self.tokens)
        places = torch.stack([torch.zeros(self.tokens), at // 4, at % 4], dim=1)
        with torch.no_grad():
            steps = [model(self.hidden, self.prompt, torch.zeros(self.text, 3), places)[0] for _ in self.rows.values]
        assert not torch.equal(steps[0], steps[1])
        return torch.stack(steps)


@pytest.mark.slow  # the interpreter
@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.02), ("fp8", 0.15)])
def test_a_whole_step_with_fused_operations_is_near_the_plain_one(tiny_flux: Any, kind: Any, bound: float) -> None:
    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import PlainOps

    case = Case(tiny_flux, steps=2)
    plain = case.steps(kind, PlainOps(kind))
    near(case.steps(kind, FusedOps(kind)), plain, bound)
    near(case.steps(kind, FusedOps(kind, scale_later=False)), plain, bound)


@pytest.mark.slow  # the interpreter
@pytest.mark.parametrize(("kind", "bound"), [("bf16", 0.02), ("fp8", 0.15)])
def test_the_first_block_cache_with_fused_operations(tiny_flux: Any, kind: Any, bound: float) -> None:
    import torch

    from fluxkit.sampling.first_block import BlockPasses, FirstBlockCache
    from fluxkit.sampling.fused_ops import FusedOps
    from fluxkit.sampling.ops import PlainOps

    case = Case(tiny_flux, steps=3, calm=((1, 0), (2, 0), (2, 1)))
    blocks = case.config["num_layers"] + case.config["num_single_layers"]
    found = {}
    for name, ops in (("plain", PlainOps(kind)), ("fused", FusedOps(kind))):
        cache = FirstBlockCache(0.2, blocks)
        found[name] = case.steps(kind, ops, cache)
        # The second step is computed for the second picture alone, the third for none.
        assert cache.take_passes() == BlockPasses(all=6 * blocks, saved=3 * (blocks - 1))
    for fused, plain in zip(found["fused"], found["plain"], strict=True):
        near(fused, plain, bound)
    full = case.steps(kind, FusedOps(kind))
    assert torch.equal(found["fused"][0], full[0])
    near(found["fused"][1, 1], full[1, 1], bound)
    assert not torch.equal(found["fused"][1, 0], full[1, 0])


@pytest.mark.slow  # the interpreter
@pytest.mark.parametrize("kind", ["bf16", "fp8", "int8"])
def test_what_the_benchmark_holds_a_gpus_kernels_to(kind: Any) -> None:
    import torch

    from benchmarks.kernel_checks import BOUNDS, errors

    torch.manual_seed(0)  # the interpreter's own rounding to fp8 comes near the bound, with some numbers over it
    found = errors(kind, 3, 16, torch.device("cpu"))
    assert max(found.values()) < BOUNDS[kind], found
    assert len(found) == (21 if kind == "fp8" else 12)


def test_quantized_attention_is_as_exact_as_a_product_in_fp8() -> None:
    import torch

    from benchmarks.kernel_checks import attention_errors

    # The interpreter rounds to fp8 in another way than torch and GPUs; on an H200 the errors are 0.02 and 0.05.
    found = attention_errors(2, 32, torch.device("cpu"), long=256)
    assert len(found) == 6
    assert max(found.values()) < 0.15, found


def test_attention_stays_in_bf16_where_quantized_attention_can_not_do_it() -> None:
    import torch

    from fluxkit.sampling.ops import Product
    from fluxkit.sampling.quantized_attention import can_attend

    def stream(tokens: int, heads: int, scaled: bool = False) -> Any:
        scale = None if scaled else torch.ones(tokens, 1)
        return Product(torch.zeros(1, tokens, 3 * heads * 32), scale), None, None

    assert can_attend([stream(128, 2), stream(77, 2)], 2)
    assert not can_attend([stream(128, 2), stream(77, 2, scaled=True)], 2), "finished in bf16 already"
    assert not can_attend([stream(128, 2)], 4), "heads of 16"
