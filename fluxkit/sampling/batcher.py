"""`sample`: jobs, minus what the folder has, through the pipeline, into PNGs, a manifest and a gallery."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from fluxkit.errors import InterruptedByUser
from fluxkit.sampling.gallery import write_gallery
from fluxkit.sampling.ledger import Ledger, open_ledger
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import Identity, Job, SamplingPlan, identities, job_key
from fluxkit.sampling.quantizers import quantizer
from fluxkit.sampling.writer import describe, write_png


@dataclass(frozen=True)
class SampleReport:
    """What `sample` did.

    Args:
        made: images made now.
        skipped: images that were there already.
        modules: modules that an adapter changed; 0 without an adapter, or when nothing was missing.
        folder: where the images are.
        gallery: the page that shows them.
        effects: by adapter name, how far it moves a prediction of the model (relative); only of what was loaded.
    """

    made: int
    skipped: int
    modules: int
    folder: Path
    gallery: Path
    effects: Mapping[str, float] = field(default_factory=dict)


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
    known = identities(plan)
    with open_ledger(plan.out) as ledger:
        wanted = {job_key(job, known[job.adapter]): job for job in plan.jobs}
        missing = {key: job for key, job in wanted.items() if not ledger.has(key)}
        modules = made = 0
        effects: dict[str, float] = {}
        try:
            if missing:
                sampler = FluxSampler(plan.base, plan.revision, place, wrapped=plan.wrapped)
                sampler.encode(job.prompt for job in missing.values())
                for matched in _make(plan, sampler, ledger, missing, known, effects):
                    modules, made = max(modules, matched), made + 1
                    on_progress(made, len(missing))
        except KeyboardInterrupt as error:
            raise InterruptedByUser(
                f"Interrupted: {made} of {len(missing)} images are made, in {plan.out}.",
                fix="Run the same command again for the rest.",
            ) from error
        finally:
            # Also of what was made before an error or Ctrl-C.
            gallery = write_gallery(ledger)
    return SampleReport(made, len(wanted) - len(missing), modules, plan.out, gallery, effects)


def _make(
    plan: SamplingPlan,
    sampler: FluxSampler,
    ledger: Ledger,
    missing: dict[str, Job],
    known: Mapping[str, Identity],
    effects: dict[str, float],
) -> Iterator[int]:
    """Make, write and record; yields the number of adapted modules for each image, and fills `effects`."""
    keys = {job: key for key, job in missing.items()}
    # Each adapter at each strength is a model of its own: sorted, so that each is made once.
    for (adapter, strength), same in groupby(sorted(missing.values(), key=_group), key=_model):
        stack = plan.stack(adapter)
        modules = sampler.load_transformer(stack, strength)
        effect = sampler.prove(known[adapter], stack, strength)
        if effect is not None:
            effects[adapter] = effect
        for _, shape in groupby(same, key=_group):
            jobs = list(shape)
            size = sampler.auto_batch_size(jobs[0]) if plan.batch_size == "auto" else plan.batch_size
            for job, image in sampler.images(jobs, size):
                path = ledger.path_for(keys[job], job)
                write_png(path, image, job, known[adapter])
                ledger.add(keys[job], path, describe(job, known[adapter]))
                yield modules


def _model(job: Job) -> tuple[str, float]:
    """What must be equal in one state of the transformer."""
    return (job.adapter, job.strength)


def _group(job: Job) -> tuple[str, float, int, int, int, float]:
    """What must be equal in a batch; the transformer's state first."""
    return (*_model(job), job.width, job.height, job.num_inference_steps, job.guidance_scale)
