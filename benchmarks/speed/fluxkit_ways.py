"""Fluxkit's own transformer, in every arrangement that is compared."""

import contextlib
from typing import Any

import torch

from benchmarks.speed.device import DEVICE, allocated, clock, free, peak, peak_reset
from benchmarks.speed.products import best_tile
from benchmarks.speed.profiling import profile_steps
from benchmarks.speed.run import Run
from benchmarks.speed.timing import Begin, timed
from fluxkit.sampling.compiling import compile_blocks
from fluxkit.sampling.fastflux import FastFlux
from fluxkit.sampling.first_block import FirstBlockCache
from fluxkit.sampling.fused_ops import FusedOps, best_ops
from fluxkit.sampling.linears import RowLinear
from fluxkit.sampling.ops import PlainOps
from fluxkit.sampling.step_graph import StepGraph
from fluxkit.sampling.tables import DeviceTables, make_tables


def load_fast(run: Run, name: str, kind: Any, ops: PlainOps) -> tuple[FastFlux, Begin]:
    """The fast model, tables made, ready to begin a batch of so many pictures with so many steps."""
    setting, pipeline = run.setting, run.pipeline
    peak_reset()
    began = clock()
    model = FastFlux(run.flux.config, run.flux.source, kind, ops)
    built = clock() - began
    wanted = {setting.condition(steps): pipeline.pooled for steps in {2, 3, setting.steps}}
    began = clock()
    tables = make_tables(model, run.flux.source, pipeline.pipe.scheduler, wanted)
    run.record(f"load-{name}", build_s=built, tables_s=clock() - began, peak_gib=peak(), resident_gib=allocated())
    pipeline.pipe.transformer = model

    placed = DeviceTables(DEVICE)

    def begin(batch: int, steps: int) -> None:
        model.begin(placed.rows(tables, [setting.condition(steps)] * batch))

    return model, begin


def fused(kind: Any) -> PlainOps:
    """What fluxkit takes here."""
    return best_ops(kind, torch.cuda.get_device_capability() if DEVICE.type == "cuda" else None)


def fast(
    run: Run, name: str, kind: Any, batches: tuple[int, ...] = (1,), *,
    pieces: bool = True, later: bool = True, graph: bool = False, quick: bool = True, pictures: int = 8,
    exact: bool = False, profiled: bool = False,
) -> None:  # fmt: skip
    """Fluxkit's own arrangement with fused kernels, nothing compiled.

    Args:
        run: the run.
        name: in the results.
        kind: of the products.
        batches: sizes to measure.
        pieces: the kernels for whole pieces of a row, instead of those for any width.
        later: fp8 is scaled by the kernels that read it.
        graph: each step is one CUDA graph.
        quick: the decoder works with channels last.
        pictures: of each batch size, at most: of 8, the wait for the last PNGs is a tenth of a second each.
        exact: attention stays in bf16.
        profiled: a step is taken apart.
    """
    cuda = DEVICE.type == "cuda"
    ops = fused(kind)
    if cuda and (exact or not pieces or not later):
        ops = FusedOps(kind, scale_later=later, whole_pieces=pieces)
    model, begin = load_fast(run, name, kind, ops)
    if quick:
        run.pipeline.vae = run.pipeline.quick_vae
    if kind == "int8" and cuda:
        tile = best_tile(run)
        for layer in model.modules():
            if isinstance(layer, RowLinear):
                layer.tile = tile
    bound = "fp8_one_scale" if kind == "fp8" and later else kind
    if graph and cuda:
        use_graph(run, name, model, begin)
    for batch in batches:
        timed(run, name, bound, batch, begin=begin, rounds=max(pictures // batch, 1))
    if profiled and cuda:
        profile_steps(run, name, begin)


def use_graph(run: Run, name: str, model: FastFlux, begin: Begin) -> None:
    """Let a step be one CUDA graph, and say whether it makes the same."""
    begin(1, 3)
    eager = run.pipeline.denoise((0,), 3)
    model.graph = StepGraph()
    begin(1, 3)
    repeated = run.pipeline.denoise((0,), 3)
    same, gone = bool(torch.equal(eager, repeated)), float((eager - repeated).abs().max())
    run.record(f"{name}-graph", same=same, largest=gone, gave_up=model.graph.gave_up, peak_gib=peak())


def compiled(run: Run, kind: Any, batches: tuple[int, ...] = (1,)) -> None:
    """The same with plain operations, block by block through torch.compile."""
    torch._dynamo.reset()
    name = f"compiled-{kind}"
    model, begin = load_fast(run, name, kind, PlainOps(kind))
    compile_blocks(model)
    run.pipeline.vae = run.pipeline.quick_vae
    for batch in batches:
        timed(run, name, kind, batch, begin=begin)
    with contextlib.suppress(Exception):
        artifacts = torch.compiler.save_cache_artifacts()
        if artifacts:
            run.record(f"{name}-cache", mib=len(artifacts[0]) / 2**20)
    if DEVICE.type == "cuda" and kind == "fp8":
        profile_steps(run, name, begin)


def nf4(run: Run) -> None:
    """4-bit weights, unpacked layer by layer and multiplied in bf16; needs bitsandbytes."""
    _, begin = load_fast(run, "fast-nf4", "nf4", fused("bf16"))
    run.pipeline.vae = run.pipeline.quick_vae
    for batch in (1, 4):
        timed(run, "fast-nf4", "bf16", batch, begin=begin, rounds=4 // batch)


def streamed(run: Run) -> None:
    """Blocks that come over from RAM: the same numbers, to the bit, at what price."""
    pipeline = run.pipeline
    model, begin = load_fast(run, "streamed", "fp8", fused("fp8"))
    pipeline.vae = pipeline.quick_vae
    begin(1, 3)
    resident = pipeline.denoise((0,), 3)
    blocks = len(model.blocks)
    for count in (max(blocks // 3, 1), blocks):
        began = clock()
        model.stream_more(count)
        free()
        moved = clock() - began
        begin(1, 3)
        same = bool(torch.equal(pipeline.denoise((0,), 3), resident))
        run.record(f"streamed-{count}-same", same=same, moved_s=moved, resident_gib=allocated())
        timed(run, f"streamed-{count}", "fp8_one_scale", 1, begin=begin)


def first_block(run: Run, *thresholds: float) -> None:
    """The first-block cache on fp8 blocks.

    What random weights change from step to step is not what trained ones do: of these figures, the time of a step
    that is skipped and that of one that is not say something, the number of skipped ones does not.
    """
    model, begin = load_fast(run, "first-block", "fp8", fused("fp8"))
    run.pipeline.vae = run.pipeline.quick_vae
    for threshold, batch in zip((*thresholds, thresholds[-1]), (*(1 for _ in thresholds), 2), strict=True):
        cache = model.first_block_cache = FirstBlockCache(threshold, len(model.blocks))

        warm = list[bool]()

        def start(batch: int, steps: int, cache: FirstBlockCache = cache, warm: list[bool] = warm) -> None:
            begin(batch, steps)
            if steps == run.setting.steps and not warm:
                cache.take_passes()  # the warm-up's don't count
                warm.append(True)

        name = f"first-block-{threshold:g}"
        timed(run, name, "fp8_one_scale", batch, begin=start)
        passes = cache.take_passes()
        run.record(f"{name}-saved", batch=batch, block_passes=passes.all, saved=passes.saved)


def capped(run: Run, gib: float) -> None:
    """One picture with fp8 or int8 blocks while the allocator may have only so much."""
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    torch.cuda.set_per_process_memory_fraction(gib / total)
    try:
        _, begin = load_fast(run, f"cap-{gib}", "fp8", fused("fp8"))
        run.pipeline.plain_vae.to("cpu")
        run.pipeline.vae = run.pipeline.quick_vae
        timed(run, f"cap-{gib}", "fp8_one_scale", 1, begin=begin)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        run.pipeline.plain_vae.to(DEVICE)
