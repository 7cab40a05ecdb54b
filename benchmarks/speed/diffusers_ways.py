"""Diffusers' transformer: as the guide's script has it, plain in bf16, and quantized as the guide does."""

from typing import Any

import torch

from benchmarks.speed.device import clock, free, peak, peak_reset
from benchmarks.speed.pipeline import GUIDANCE, PROMPT, TEXT_TOKENS
from benchmarks.speed.run import Run
from benchmarks.speed.timing import SEEDS, nothing_to_begin, timed


def guide(run: Run) -> None:
    """The script that fluxkit replaces, written anew: everything resident, one at a time, encoded each time."""
    from optimum.quanto import freeze, qint8, quantize

    setting, pipe = run.setting, run.pipeline.pipe
    model = load_diffusers(run)
    began = clock()
    quantize(model, weights=qint8)
    freeze(model)
    quantized = clock() - began
    free()
    peak_reset()
    times = []
    for number, steps in enumerate((2, setting.steps, setting.steps)):
        start = clock()
        image = pipe(
            prompt=PROMPT, width=setting.size, height=setting.size, num_inference_steps=steps, guidance_scale=GUIDANCE,
            max_sequence_length=TEXT_TOKENS, generator=torch.Generator("cpu").manual_seed(number),
        ).images[0]  # fmt: skip
        image.save(run.work / f"guide-{number}.png")
        times.append(clock() - start)
    seconds = run.findings.guide_seconds = sum(times[1:]) / 2
    run.record("guide", batch=1, s_image=seconds, each=times, peak_gib=peak(), quantize_s=quantized)


def bf16_diffusers(run: Run) -> None:
    """Diffusers in bf16, eager; its pictures are what the others are compared with."""
    load_diffusers(run)
    timed(run, "bf16-diffusers", "bf16", 1, begin=nothing_to_begin)
    for seed in SEEDS:
        latents = run.pipeline.denoise((seed,))
        run.findings.reference[seed] = (latents.cpu(), run.pipeline.decode(latents))


def quanto(run: Run) -> None:
    """The guide's quantization with embeddings kept and encoders freed."""
    from optimum.quanto import freeze, qint8, quantize

    model = load_diffusers(run)
    quantize(model, weights=qint8)
    freeze(model)
    free()
    timed(run, "quanto-int8", "bf16", 1, begin=nothing_to_begin)


def load_diffusers(run: Run) -> Any:
    """Diffusers' transformer in bf16, in the pipeline."""
    model = run.pipeline.pipe.transformer = run.flux.diffusers_model()
    return model
