"""The fast transformer in its place: put on the GPU by prediction, with the tables that each batch needs."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fluxkit.errors import GpuMemoryError
from fluxkit.sampling.fast_loader import FastLoader
from fluxkit.sampling.memory import GIB, Placement, lower, place
from fluxkit.sampling.plan import AdapterWeight, Job

if TYPE_CHECKING:
    import torch

    from fluxkit.sampling.tables import Condition

_CPU_BATCH = 2


class FastSampler:
    """One state of the transformer: a stack of adapters at a strength.

    Args:
        pipe: diffusers' pipeline, which gets the transformer.
        loader: of the base.
        adapters: the stack, merged.
        strength: multiplies every share.
        notice: told how the model is held.

    Raises:
        UserError: the base or an adapter can't be used.
    """

    def __init__(
        self,
        pipe: Any,
        loader: FastLoader,
        adapters: Sequence[AdapterWeight],
        strength: float,
        notice: Callable[[str], None],
    ) -> None:
        self._pipe, self._loader, self._notice = pipe, loader, notice
        self._loaded = loader.load(adapters, strength)
        self.modules, self.effect = self._loaded.modules, self._loaded.effect
        self._free = free_gpu_bytes(loader.device)
        self._placed: Placement | None = None
        self._tables: dict[Condition, dict[str, torch.Tensor]] = {}

    def batch_size(self, job: Job) -> int:
        """How many pictures of this size go through at once."""
        return self._place(job, None).batch

    def begin(self, batch: Sequence[Job], pooled: "Mapping[str, torch.Tensor]") -> None:
        """Get ready for a batch: the model placed, its tables made.

        Args:
            batch: jobs of one size, number of steps and guidance.
            pooled: CLIP's embedding (1, width) of each prompt.

        Raises:
            GpuMemoryError: no rung of the ladder fits.
            torch.OutOfMemoryError: the prediction was wrong.
        """
        from fluxkit.sampling.tables import batch_rows

        self._place(batch[0], len(batch))
        conditions = [_condition(job) for job in batch]
        missing = {one: pooled[one.prompt] for one in conditions if one not in self._tables}
        if missing:
            self._tables |= self._loader.tables(self._loaded, self._pipe.scheduler, missing)
        self._loaded.model.begin(batch_rows(self._tables, conditions, self._loader.device))

    def descend(self) -> bool:
        """Stream more blocks after memory ran out; False at the end of the ladder."""
        if self._placed is None or self._loader.device.type != "cuda" and self._free is None:
            return False
        streamed = lower(self._loaded.sizes, self._placed.streamed)
        if streamed is None:
            return False
        self._loaded.model.stream_more(streamed)
        self._placed = Placement(streamed, 1, self._placed.predicted_bytes)
        free_memory()
        self._notice(f"GPU memory ran out; {streamed} of the model's blocks are streamed from RAM from now on.")
        return True

    def _place(self, job: Job, batch: int | None) -> Placement:
        """Put the model where there is room, the first time; later sizes only choose their batch."""
        free, sizes = self._free, self._loaded.sizes
        if self._placed is None:
            placed = Placement(0, batch or _CPU_BATCH, 0)
            if free is not None:
                # A batch that the user asked for is halved when it does not fit; the rung is chosen for one picture.
                found = place(sizes, free, job.width, job.height) or None
                if found is None:
                    raise GpuMemoryError(
                        f"The GPU has {free / GIB:.1f} GiB free, which is too little even with the model in RAM.",
                        fix="Close other programs that use the GPU, or make smaller images: --size 768x768.",
                    )
                placed = found
                self._notice(f"The model: {placed.describe()} of {free / GIB:.1f} GiB free.")
            self._loaded.model.settle(self._loader.device, placed.streamed)
            self._pipe.transformer = self._loaded.model
            self._placed = placed
        if free is None:
            return self._placed
        return self._placed if batch else _for_size(self._placed, sizes, free, job)


def free_gpu_bytes(device: "torch.device") -> int | None:
    """What is free on the GPU now, in bytes; None on a CPU."""
    import torch

    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free)


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _for_size(placed: Placement, sizes: Any, free: int, job: Job) -> Placement:
    """The largest batch of this size with the blocks where they are."""
    from fluxkit.sampling.memory import LARGEST_BATCH, predicted_bytes

    for batch in range(LARGEST_BATCH, 0, -1):
        peak = predicted_bytes(sizes, placed.streamed, batch, job.width, job.height)
        if peak <= free:
            return Placement(placed.streamed, batch, peak)
    return Placement(placed.streamed, 1, placed.predicted_bytes)


def _condition(job: Job) -> "Condition":
    from fluxkit.sampling.tables import Condition

    return Condition(job.prompt, job.width, job.height, job.num_inference_steps, job.guidance_scale)
