"""How fast fluxkit makes pictures, beside a script that keeps the whole pipeline on the GPU and makes one at a time.

    python benchmarks/sampling.py --out FOLDER [--variants a,b] [--budget SECONDS] [--tiny]

A full-size FLUX.1-dev with random weights, made on the GPU tensor by tensor (no disk): speed and memory don't depend
on the values. Every variant has its own time limit and its own line in FOLDER/results.jsonl, written as it ends. The
budget counts from the process's start, imports and all.

Pictures are decoded and given to a thread that writes PNGs while the next is made, as fluxkit does. `s_image` is the
time from the first step until the last PNG is written, over the pictures: what so few of them took. `s_image_steady`
ends when the last picture is decoded: what each of many takes, as long as writing keeps up. `pngs_left` says whether it
does: PNGs not yet written at that moment, which are then the last batch's.

`--tiny` takes the tiny model and 64×64 pixels instead, on a CPU too: the same code path, in a minute.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.speed.budget import process_seconds
from benchmarks.speed.decoders import decoders
from benchmarks.speed.device import DEVICE
from benchmarks.speed.diffusers_ways import bf16_diffusers, guide, quanto
from benchmarks.speed.fluxkit_ways import capped, compiled, fast, first_block, nf4, streamed
from benchmarks.speed.kernels import check_kernels, kernels
from benchmarks.speed.products import measure_rates
from benchmarks.speed.run import Run, drop_encoders, encode, make_run

SETUP_S = 30.0  # Python's libraries from a cold disk, and encoding


class Variant(NamedTuple):
    """What is measured, with its limit and what it takes on an H100 or H200, in seconds; partly worked out."""

    name: str
    limit_s: int
    expected_s: float
    work: Callable[[Run], None]


def _fast(name: str, kind: str, *args: Any, **options: Any) -> Callable[[Run], None]:
    """One of fluxkit's own arrangements."""
    return lambda run: fast(run, name, kind, *args, **options)


# In the order of their value.
VARIANTS = (
    Variant("rates", 20, 3, measure_rates),
    Variant("check", 60, 12, check_kernels),
    Variant("guide", 40, 13, guide),
    Variant("drop-encoders", 5, 0.6, drop_encoders),
    Variant("bf16-diffusers", 30, 9, bf16_diffusers),
    Variant("fast-fp8", 80, 54, _fast("fast-fp8", "fp8", (1, 2, 4), profiled=True)),
    Variant("wall-fp8", 70, 52, _fast("wall-fp8", "fp8", (4,), pictures=24)),
    Variant("blocks-fp8", 30, 9, _fast("blocks-fp8", "fp8", pieces=False, pictures=4, profiled=True)),
    Variant("exact-fp8", 30, 12, _fast("exact-fp8", "fp8", exact=True, pictures=4, profiled=True)),
    Variant("vae", 20, 4, decoders),
    Variant("streamed", 60, 22, streamed),
    Variant("fast-int8", 40, 21, _fast("fast-int8", "int8")),
    Variant("nf4", 50, 24, nf4),
    Variant("kernels", 40, 2, kernels),
    Variant("first-block", 50, 7, lambda run: first_block(run, 0.08, 0.9)),
    Variant("fast-bf16", 50, 23, _fast("fast-bf16", "bf16")),
    Variant("cap-11", 20, 9, lambda run: capped(run, 11.0)),
    Variant("compiled-fp8", 120, 39, lambda run: compiled(run, "fp8", (1, 2))),
    Variant("plain-vae-fp8", 25, 9, _fast("plain-vae-fp8", "fp8", quick=False, pictures=4)),
    Variant("graph-fp8", 25, 10, _fast("graph-fp8", "fp8", graph=True, pictures=4)),
    Variant("rows-fp8", 25, 9, _fast("rows-fp8", "fp8", later=False, pictures=4)),
    Variant("compiled-bf16", 60, 12, lambda run: compiled(run, "bf16")),
    Variant("quanto", 25, 13, quanto),
)


def main() -> None:
    """Run the variants in the order of their value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default="")
    parser.add_argument("--budget", type=int, default=1800)
    parser.add_argument("--label", default="")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    wanted = [one for one in options.variants.split(",") if one]
    unknown = sorted({*wanted} - {one.name for one in VARIANTS})
    if unknown:
        parser.error(f"no such variants: {', '.join(unknown)}; there are {', '.join(one.name for one in VARIANTS)}")
    run = make_run(options)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    run.record("machine", device=name, torch=torch.__version__, setup_s=process_seconds())
    attempt = functools.partial(run.budget.attempt, clear=run.pipeline.clear)
    attempt("encode", 40, functools.partial(encode, run))
    chosen = [one for one in VARIANTS if not wanted or one.name in wanted or one.name == "drop-encoders"]
    planned = sum(one.expected_s for one in chosen) + SETUP_S
    print(f"# planned: {planned:.0f} s by an H100's or H200's figures, of {options.budget}", flush=True)
    for one in chosen:
        if one.name not in run.budget.tried or one.name == "drop-encoders":  # a new process has encoded anew
            attempt(one.name, one.limit_s, functools.partial(one.work, run))


if __name__ == "__main__":
    main()
