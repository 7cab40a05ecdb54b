"""`sample`: jobs, minus what the folder has, through the pipeline, into PNGs, a manifest and a gallery."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fluxkit.errors import InterruptedByUser, UserError
from fluxkit.files import sha256_file
from fluxkit.sampling.gallery import write_gallery
from fluxkit.sampling.ledger import Ledger, open_ledger
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import Identity, Job, SamplingPlan, job_key
from fluxkit.sampling.quantizers import quantizer
from fluxkit.sampling.writer import describe, write_png


@dataclass(frozen=True)
class SampleReport:
    """What `sample` did.

    Args:
        made: images made now.
        skipped: images that were there already.
        modules: modules that the adapter was merged into; 0 without an adapter, or when nothing was missing.
        folder: where the images are.
        gallery: the page that shows them.
    """

    made: int
    skipped: int
    modules: int
    folder: Path
    gallery: Path


def sample(plan: SamplingPlan, *, on_progress: Callable[[int, int], None]) -> SampleReport:
    """Make the images of a plan that its folder does not have yet.

    Args:
        plan: what to make, and where.
        on_progress: called after each image with the number made and the number to make.

    Raises:
        UserError: the base model, the adapter or the folder can't be used.
        GpuMemoryError: not even one image at a time fits.
        InterruptedByUser: Ctrl-C; what was made is kept, and the next run goes on from there.
    """
    place = quantizer(plan.quantize)  # refuses before anything is loaded
    identity = _identity(plan)
    with open_ledger(plan.out) as ledger:
        wanted = {job_key(job, identity): job for job in plan.jobs}
        missing = {key: job for key, job in wanted.items() if not ledger.has(key)}
        modules = made = 0
        try:
            if missing:
                sampler = FluxSampler(plan.base, plan.revision, place)
                sampler.encode(job.prompt for job in missing.values())
                for modules, key in _make(plan, sampler, ledger, missing, identity):  # noqa: B007 - the last is kept
                    made += 1
                    on_progress(made, len(missing))
        except KeyboardInterrupt as error:
            raise InterruptedByUser(
                f"Interrupted: {made} of {len(missing)} images are made, in {plan.out}.",
                fix="Run the same command again for the rest.",
            ) from error
        finally:
            # Also of what was made before an error or Ctrl-C.
            gallery = write_gallery(ledger)
    return SampleReport(made, len(wanted) - len(missing), modules, plan.out, gallery)


def _make(
    plan: SamplingPlan, sampler: FluxSampler, ledger: Ledger, missing: dict[str, Job], identity: Identity
) -> Iterator[tuple[int, str]]:
    """Make, write and record; yields the number of merged modules and the job's hash for each image."""
    keys = {job: key for key, job in missing.items()}
    # Each strength is a merge of its own, from fresh weights: sorted, so that each is made once.
    for strength, same in groupby(sorted(missing.values(), key=_group), key=lambda job: job.strength):
        modules = sampler.load_transformer(plan.adapter, strength)
        for _, shape in groupby(same, key=_group):
            jobs = list(shape)
            size = sampler.auto_batch_size(jobs[0]) if plan.batch_size == "auto" else plan.batch_size
            for job, image in sampler.images(jobs, size):
                path = ledger.path_for(keys[job], job)
                write_png(path, image, job, identity)
                ledger.add(keys[job], path, describe(job, identity))
                yield modules, keys[job]


def _group(job: Job) -> tuple[float, int, int, int, float]:
    """What must be equal in a batch; the strength first."""
    return (job.strength, job.width, job.height, job.num_inference_steps, job.guidance_scale)


def _identity(plan: SamplingPlan) -> Identity:
    adapter = None
    if plan.adapter is not None:
        try:
            adapter = sha256_file(plan.adapter)
        except OSError as error:
            raise UserError(
                f"The adapter {plan.adapter} can't be read: {error.strerror}.", fix="Check the path."
            ) from error
    folder = Path(plan.base).expanduser()
    base = str(folder.resolve()) if folder.is_dir() else str(plan.base)
    return Identity(base, plan.revision, adapter, plan.quantize)
