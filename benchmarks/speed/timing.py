"""Full pictures, timed, and compared with diffusers' own of the same seed."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.speed.budget import process_seconds
from benchmarks.speed.device import clock, peak, peak_reset
from benchmarks.speed.pipeline import TEXT_TOKENS
from benchmarks.speed.run import Run

SEEDS = (0, 1)  # of the pictures that others are compared with
WARM_STEPS = 3
Begin = Callable[[int, int], None]  # given pictures a batch and steps, before each batch


def nothing_to_begin(*_: int) -> None:
    """For a transformer that takes what the pipeline gives it."""


def timed(run: Run, name: str, kind: str, batch: int, *, begin: Begin, rounds: int = 2) -> None:
    """Warm up, then full pictures, decoded and written as fluxkit does: beside the next step.

    Args:
        run: the transformer and the VAE are in its pipeline.
        name: in the results.
        kind: of the products whose rate is the limit.
        batch: pictures at once.
        begin: tells the transformer what comes.
        rounds: batches, at most: fewer if time is short.
    """
    pipeline, setting = run.pipeline, run.setting
    peak_reset()
    began = clock()
    begin(batch, WARM_STEPS)
    pipeline.denoise(tuple(range(batch)), WARM_STEPS)
    cold = clock() - began
    second = None
    steps, writing = list[float](), list[Future[None]]()
    began = last = clock()
    with ThreadPoolExecutor(1) as pool:
        for number in range(rounds):
            if number and run.budget.ends - time.monotonic() < 1.5 * (last - began) / number + 2:
                break
            start = clock()
            begin(batch, setting.steps)
            latents = pipeline.denoise(tuple(seed + number for seed in range(batch)))
            given = time.perf_counter() - start
            steps.append((clock() - start) / setting.steps)
            if number == 0:
                run.record(f"{name}-denoised", batch=batch, s_step=steps[0], host_s_step=given / setting.steps,
                           peak_gib=peak())  # fmt: skip
            if batch == 1 and number == SEEDS[-1]:
                second = latents.clone()
            for row in range(batch):
                image = pipeline.decode(latents[row : row + 1])
                file = run.work / f"{name}-{batch}-{number}-{row}.png"
                writing.append(pool.submit(image.save, file))
            last = clock()
        left = sum(not one.done() for one in writing)
    pictures = len(writing)
    seconds, steady = (clock() - began) / pictures, (last - began) / pictures
    step, guide = sum(steps) / len(steps), run.findings.guide_seconds
    run.record(
        name, batch=batch, pictures=pictures, s_step=step, each_s_step=steps, s_image=seconds, s_image_steady=steady,
        pngs_left=left, first_steps_s=cold, peak_gib=peak(), of_limit=limit(run, kind, batch) / step,
        against_guide=guide / seconds, against_guide_steady=guide / steady,
        since_process_start_s=process_seconds(),
    )  # fmt: skip
    if len(run.findings.reference) == len(SEEDS) and second is not None:
        run.record(f"{name}-quality", **compare(run, second, SEEDS[-1]))


def compare(run: Run, latents: torch.Tensor, seed: int) -> dict[str, float]:
    """Against diffusers' bf16 picture of the same seed."""
    import numpy as np

    other, picture = run.findings.reference[seed]
    one, two = latents.float().cpu(), other.float()
    pixels = [np.asarray(image, dtype=np.float64) for image in (run.pipeline.decode(latents), picture)]
    return {
        "psnr_db": psnr(*pixels),
        "latent_max": float((one - two).abs().max()),
        "latent_relative": float((one - two).norm() / two.norm()),
    }


def psnr(one: Any, two: Any) -> float:
    """How near two pictures are, in dB, each an array of 0 to 255; infinity for the same."""
    error = float(((one - two) ** 2).mean())
    return 10 * math.log10(255**2 / error) if error else math.inf


def limit(run: Run, kind: str, batch: int) -> float:
    """Seconds that a step's products, and attention's, take at this run's rates.

    Attention is made in bf16, or in int8 and fp8: then at the rate of products in fp8 without scales, the fastest.
    """
    rates, ops = run.findings.rates, getattr(run.pipeline.pipe.transformer, "ops", None)
    attention = "fp8_one_scale" if getattr(ops, "quantized_attention", False) else "bf16"
    if kind not in rates or attention not in rates:
        return math.nan
    count = flops(run, batch)
    return count["linear"] / rates[kind] + count["attention"] / rates[attention]


def flops(run: Run, batch: int) -> dict[str, float]:
    """Of one step, counted from shapes: products of the blocks by kind of operand, and attention."""
    flux, tokens = run.flux, run.setting.tokens
    linear = 0.0
    for key, shape in flux.shapes.items():
        if len(shape) == 2 and ".norm" not in key and "blocks" in key:
            text = any(part in key for part in ("add_", "context"))
            image = key.startswith("transformer_blocks") and not text
            rows = TEXT_TOKENS if text else tokens - TEXT_TOKENS if image else tokens
            linear += 2.0 * rows * shape[0] * shape[1]
    blocks = flux.doubles + flux.singles
    return {"linear": linear * batch, "attention": 4.0 * tokens**2 * flux.width * blocks * batch}
