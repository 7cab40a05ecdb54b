"""How long planning and resuming a large folder takes: `python benchmarks/ledger.py [images]`.

No image is made: the folder is filled with small files and recorded as a run records them. Then what a second
`fluxkit sample` does before it knows that nothing is missing is timed, in this process, libraries already imported.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fluxkit.sampling.batcher import sample
from fluxkit.sampling.ledger import open_ledger
from fluxkit.sampling.plan import SamplingPlan, identities, job_key, plan_jobs
from fluxkit.sampling.writer import describe


def timed(label: str, function: Callable[[], object]) -> None:
    """Print the best of five: the time that passed, and the processor's, which other programs disturb less."""
    passed, busy = [], []
    for _ in range(5):
        began, worked = time.perf_counter(), time.process_time()
        function()
        passed.append(time.perf_counter() - began)
        busy.append(time.process_time() - worked)
    print(f"{label:44} {min(passed):8.3f} s, processor {min(busy):.3f} s")


def main() -> None:
    """Fill a folder, then plan and resume it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    prompts = {f"prompt-{i}": f"ohwx man, a portrait in light number {i}" for i in range(count // 100)}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "samples"

        def plan() -> SamplingPlan:
            jobs = plan_jobs(prompts, seeds=range(100), width=1024, height=1024)
            return SamplingPlan("black-forest-labs/FLUX.1-dev", None, {}, "int8", jobs, "auto", out)

        planned = plan()
        known = identities(planned)
        began = time.perf_counter()
        with open_ledger(out) as ledger:
            for job in planned.jobs:
                key = job_key(job, known[job.adapter])
                path = ledger.path_for(key, job)
                path.write_bytes(key.encode())
                ledger.add(key, path, describe(job, known[job.adapter]))
        print(f"{count} images recorded, and the manifest written {time.perf_counter() - began:4.1f} s")
        (out / "index.html").write_text("the gallery is there already")
        timed("planned", plan)

        def resume() -> None:
            report = sample(plan(), on_progress=lambda _done, _total: None)
            assert (report.made, report.skipped) == (0, count)

        timed("planned and resumed, nothing missing", resume)
        print(f"{'manifest.json':44} {(out / 'manifest.json').stat().st_size / 2**20:8.1f} MiB")


if __name__ == "__main__":
    main()
