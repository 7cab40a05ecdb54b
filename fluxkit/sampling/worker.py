"""One GPU's share: the model is loaded when the first task comes, and stays."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from fluxkit.errors import UserError
from fluxkit.sampling.fast_loader import needed_files
from fluxkit.sampling.ledger import folder_gone
from fluxkit.sampling.overlap import BackgroundWriter
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import Job
from fluxkit.sampling.quantizers import RowQuantizer, quantizer
from fluxkit.sampling.reading import Ahead
from fluxkit.sampling.work import Failed, Made, Task, Work, batch_of, model_of
from fluxkit.sampling.writer import write_image

if TYPE_CHECKING:
    from PIL.Image import Image


class Worker:
    """Makes images with one model on one device; of one thread, but for the writing."""

    def __init__(self, work: Work) -> None:
        """Load nothing yet."""
        self._work = work
        self._sampler: FluxSampler | None = None
        self._model: tuple[str, float] | None = None
        self._modules = 0
        self._effect: float | None = None
        self._writer: BackgroundWriter[Made] = BackgroundWriter()

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        """Every task's outcome, in an order that changes the model as seldom as can be.

        Raises:
            UserError: the base model or an adapter can't be used, the disk is full or the folder gone.
            GpuMemoryError: not even one image fits.
        """
        # Each adapter at each strength is a model of its own: sorted, so that each is made once.
        for _, same in groupby(sorted(tasks, key=_batch), key=_batch):
            yield from self._make(list(same))
        yield from self._writer.drain()

    def load(self, job: Job) -> None:
        """Get ready for a job: the model loaded, the prompts encoded, the adapter in place.

        Raises:
            UserError: the base model or the adapter can't be used.
            GpuMemoryError: the weights don't fit.
        """
        self._load(model_of(job))

    def stop(self) -> list[Made | Failed]:
        """What was being written when `make` was left; ends the thread."""
        finished: list[Made | Failed] = []
        while True:
            try:
                finished.extend(self._writer.drain())
            except UserError:
                continue  # the disk is full, say: what was written before it was is still there
            self._writer.close()
            return finished

    def _make(self, tasks: list[Task]) -> Iterator[Made | Failed]:
        """The outcome of tasks that go into batches together."""
        sampler = self._load(model_of(tasks[0].job))
        waiting = {task.job: task for task in tasks}
        size = self._work.batch_size
        if size == "auto":
            size = sampler.auto_batch_size(tasks[0].job)
        for job, image in sampler.images([task.job for task in tasks], size):
            if image is None:
                yield _black(waiting[job])
                continue
            yield from self._writer.put(partial(self._write, waiting[job], image, self._modules, self._effect))

    def _write(self, task: Task, image: "Image", modules: int, effect: float | None) -> Made:
        identity = self._work.identities[task.job.adapter]
        try:
            write_image(task.path, image, task.job, identity, metadata=self._work.metadata)
        except UserError as error:
            if not task.path.parent.is_dir():
                raise folder_gone(task.path.parent) from error
            raise
        return Made(task.key, modules, effect)

    def _load(self, model: tuple[str, float]) -> FluxSampler:
        if self._sampler is None:
            work, chosen = self._work, quantizer(self._work.quantize)
            files = self._files(chosen, model)
            ahead = Ahead(files)  # while torch is imported
            sampler = FluxSampler(
                work.base,
                work.revision,
                chosen,
                wrapped=work.wrapped,
                first_block_cache=work.first_block_cache,
            )
            ahead.stop()
            sampler.encode(work.prompts)
            self._sampler = sampler
        if model != self._model:
            name, strength = model
            self._model = None
            stack = self._work.adapters[name] if name else ()
            self._modules = self._sampler.load_transformer(stack, strength)
            self._effect = self._sampler.prove(self._work.identities[name], stack, strength)
            self._model = model
        return self._sampler

    def _files(self, chosen: object, model: tuple[str, float]) -> list[Path]:
        """What the first model will be read from."""
        if not isinstance(chosen, RowQuantizer):
            return []
        name, strength = model
        stack = self._work.adapters[name] if name else ()
        return needed_files(str(self._work.base), self._work.revision, stack, strength, chosen.kind)


class LocalEngine:
    """The model in this process."""

    def __init__(self, worker_type: type[Worker] = Worker) -> None:
        """Load nothing yet.

        Args:
            worker_type: what makes the images.
        """
        self._worker_type = worker_type
        self._worker: Worker | None = None

    def make(self, work: Work, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        """See `Engine`."""
        self._worker = self._worker_type(work)
        return self._worker.make(tasks)

    def stop(self) -> list[Made | Failed]:
        """See `Engine`."""
        return self._worker.stop() if self._worker else []


def _black(task: Task) -> Failed:
    job = task.job
    adapted = f" with {job.adapter} at strength {job.strength:g}" if job.adapter else ""
    return Failed(
        task.key,
        f"The image of {job.prompt_name!a}, seed {job.seed}{adapted} came out black (numbers overflowed).",
        "Try a lower --strength or an earlier checkpoint: the training may have diverged. Or --quantize none.",
    )


def _batch(task: Task) -> tuple[object, ...]:
    return batch_of(task.job)
