"""What goes to those who make images, what comes back, and what they have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fluxkit.sampling.plan import AdapterWeight, Identity, Job, Quantization, SamplingPlan


@dataclass(frozen=True)
class Work:
    """What every worker of a run needs to know; the jobs come one by one.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
        adapters: by name, as in the plan.
        quantize: how the transformer's weights are held.
        wrapped: whether adapters stay beside the quantized weights. Of the whole plan: a worker sees a part of it.
        batch_size: images denoised at once; `auto` fits it to the worker's GPU.
        identities: by adapter name, what is written into the images.
        prompts: all texts of the run; encoded before the first image, since the encoders are then freed.
        metadata: whether the files say how they were made.
        first_block_cache: threshold of the first-block cache; None leaves it off.
    """

    base: str | Path
    revision: str | None
    adapters: Mapping[str, tuple[AdapterWeight, ...]]
    quantize: Quantization
    wrapped: bool
    batch_size: int | Literal["auto"]
    identities: Mapping[str, Identity]
    prompts: tuple[str, ...]
    metadata: bool = True
    first_block_cache: float | None = None


@dataclass(frozen=True)
class Task:
    """One image to make.

    Args:
        key: the job's hash.
        job: what it shows.
        path: where it goes.
    """

    key: str
    job: Job
    path: Path


@dataclass(frozen=True)
class Made:
    """An image that lies, whole, where its task said.

    Args:
        key: of its task.
        modules: modules that an adapter changed; 0 without one.
        effect: how far that adapter moves a prediction (`proof.prove`); None without one.
    """

    key: str
    modules: int
    effect: float | None = None


@dataclass(frozen=True)
class Failed:
    """An image that can't be made, while others can.

    Args:
        key: of its task.
        reason: what went wrong.
        fix: what to do about it.
    """

    key: str
    reason: str
    fix: str


class Engine(Protocol):
    """Makes images, wherever. The ledger is not its business: it has one writer, the run that called."""

    def make(self, work: Work, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        """Every task's outcome once, as it comes.

        Raises:
            UserError: the base model or an adapter can't be used, the disk is full or the folder gone.
            GpuMemoryError: not even one image at a time fits.
        """

    def stop(self) -> list[Made | Failed]:
        """End what runs, and return what was finished and not handed over yet.

        Called once after `make`, whatever happened to it; raises nothing that fluxkit understands.
        """


def work_of(plan: SamplingPlan, identities: Mapping[str, Identity], tasks: Sequence[Task]) -> Work:
    """What the workers of a plan need for these tasks."""
    return Work(
        base=plan.base,
        revision=plan.revision,
        adapters=dict(plan.adapters),
        quantize=plan.quantize,
        wrapped=plan.wrapped,
        batch_size=plan.batch_size,
        identities=dict(identities),
        prompts=tuple(dict.fromkeys(task.job.prompt for task in tasks)),
        metadata=plan.metadata,
        first_block_cache=plan.first_block_cache,
    )


def model_of(job: Job) -> tuple[str, float]:
    """What must be equal in one state of the transformer."""
    return (job.adapter, job.strength)


def batch_of(job: Job) -> tuple[str, float, int, int, int, float]:
    """What must be equal in a batch; the transformer's state first."""
    return (*model_of(job), job.width, job.height, job.num_inference_steps, job.guidance_scale)
