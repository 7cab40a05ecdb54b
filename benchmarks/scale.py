"""How much faster N workers are than one: the same images with `--engine ray`, one after the other, in one run.

    python benchmarks/scale.py --workers local,1,2 --images 64 [--base FOLDER --size 1024 --steps 20 --quantize int8]

Without --base it uses the tiny model, on CPUs: that shows what fluxkit and Ray add, not what GPUs do. The rate is that
of the middle half of the images, when all workers have loaded and none has run out of work; the total has it all in.
Caches are filled by whichever comes first, `local` unless --workers leaves it out: loading is what a second start has.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import linear_regression

from fluxkit.files import sha256_file
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import SamplingPlan, plan_jobs
from fluxkit.sampling.ray_engine import RayEngine
from fluxkit.sampling.tiny_flux import make_tiny_flux


def measure(plan: SamplingPlan, engine: RayEngine | None) -> tuple[float, float, float]:
    """Seconds in all, seconds to the first image, images a second in the middle half."""
    times: list[float] = []
    began = time.perf_counter()
    sample(plan, on_progress=lambda _done, _total: times.append(time.perf_counter()), engine=engine)
    total = time.perf_counter() - began
    return total, times[0] - began, rate(times)


def rate(times: Sequence[float]) -> float:
    """Images a second in the middle half, by least squares: they come in batches, and two points would tell of one.

    Args:
        times: when each image was there, in seconds, ascending.
    """
    middle = range(len(times) // 4, 3 * len(times) // 4)
    return linear_regression([times[index] for index in middle], middle).slope


def main() -> None:
    """Measure each number of workers, and the local engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path)
    parser.add_argument(
        "--workers", default="local,1,2", help="numbers of Ray's workers; local is the engine without Ray"
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--ray-address")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = options.base or make_tiny_flux(Path(name) / "tiny-flux")
        jobs = plan_jobs(
            {"p": "ohwx man"},
            seeds=range(options.images),
            width=options.size,
            height=options.size,
            num_inference_steps=options.steps,
        )
        plan = SamplingPlan(base, None, {}, options.quantize, jobs, options.batch_size, Path(name))
        rates: dict[str, float] = {}
        pictures: set[tuple[tuple[str, str], ...]] = set()
        print(f"{'engine':12} {'total':>9} {'first':>9} {'images/s':>9} {'against 1':>9}")
        for workers in options.workers.split(","):
            engine = None if workers == "local" else RayEngine(options.ray_address, int(workers))
            out = Path(name) / workers
            total, first, rates[workers] = measure(replace(plan, out=out), engine)
            ratio = rates[workers] / rates.get("1", next(iter(rates.values())))
            label = "ray " * (engine is not None) + workers
            print(f"{label:12} {total:8.1f}s {first:8.1f}s {rates[workers]:9.2f} {ratio:8.2f}×", flush=True)
            pictures.add(tuple(sorted((path.name, sha256_file(path)) for path in out.glob("*.png"))))
        print("all runs made the same bytes" if len(pictures) == 1 else "THE RUNS DIFFER IN THEIR BYTES")


if __name__ == "__main__":
    main()
