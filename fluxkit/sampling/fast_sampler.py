"""The fast transformer in its place: put on the GPU by prediction, with the tables that each batch needs."""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fluxkit.errors import GpuMemoryError
from fluxkit.sampling.compiling import Timing, Timings, compile_blocks, wanted
from fluxkit.sampling.fast_loader import FastLoader
from fluxkit.sampling.memory import GIB, LARGEST_BATCH, Placement, lower, place, predicted_bytes
from fluxkit.sampling.plan import AdapterWeight, Job
from fluxkit.sampling.tensor_cache import library_versions

if TYPE_CHECKING:
    import torch

    from fluxkit.sampling.tables import Condition

_CPU_BATCH = 2
_TABLES_KEPT = 48  # 2 GB


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
        self._way: str | None = None
        self._first: dict[tuple[Any, ...], float] = {}

    @property
    def padded(self) -> bool:
        """Whether a batch that is not full must be filled up: another size would be compiled anew."""
        return self._way == "compiled"

    def expect(self, job: Job, batch: int, pictures: int) -> None:
        """Compile or not, decided once by how many pictures come.

        Args:
            job: one of them.
            batch: pictures at once.
            pictures: how many in all.
        """
        if self._way is None:
            if self._loader.device.type != "cuda" and wanted() != "on":
                self._way = "eager"
                return
            placed = self._place(job, batch)
            compiled, why = self._timings(job, batch).decide(pictures)
            if compiled and placed.streamed:
                compiled, why = False, "blocks are streamed"
            self._way = "compiled" if compiled else "eager"
            self._notice(f"{'Compiling' if compiled else 'Not compiling'}: {why}.")
            if compiled:
                compile_blocks(self._loaded.model)

    def took(self, batch: Sequence[Job], rows: int, seconds: float) -> None:
        """Note how long a batch of so many rows took; the first of a kind compiles or builds kernels."""
        if self._way is None:
            return
        key = (rows, batch[0].width, batch[0].height, batch[0].num_inference_steps)
        if key not in self._first:
            self._first[key] = seconds
        else:
            timing = Timing(seconds / rows, max(self._first[key] - seconds, 0.0))
            self._timings(batch[0], rows).put(self._way, timing)

    def _timings(self, job: Job, batch: int) -> Timings:
        return Timings(
            gpu=gpu_name(self._loader.device),
            **library_versions("torch"),
            kind=self._loaded.model.kind,
            size=f"{job.width}x{job.height}",
            steps=job.num_inference_steps,
            batch=batch,
        )

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
        self._tabulate(conditions, pooled)
        self._loaded.model.begin(batch_rows(self._tables, conditions, self._loader.device))

    def prepare(self, jobs: Sequence[Job], pooled: "Mapping[str, torch.Tensor]") -> None:
        """Make the tables of many jobs in one reading of the adaLN weights (6.5 GB)."""
        conditions = list(dict.fromkeys(_condition(job) for job in jobs))
        self._place(jobs[0], 1)
        for start in range(0, len(conditions), _TABLES_KEPT):
            self._tabulate(conditions[start : start + _TABLES_KEPT], pooled)

    def _tabulate(self, conditions: "Sequence[Condition]", pooled: "Mapping[str, torch.Tensor]") -> None:
        missing = {one: pooled[one.prompt] for one in conditions if one not in self._tables}
        if missing:
            made = self._loader.tables(self._loaded, self._pipe.scheduler, missing)
            # 42 MB each at 20 steps; what is let go is still on disk.
            kept = {one: table for one, table in self._tables.items() if one in conditions}
            if len(self._tables) + len(made) <= _TABLES_KEPT:
                kept = self._tables
            self._tables = {**kept, **made}

    def descend(self) -> bool:
        """Stream more blocks after memory ran out; False at the end of the ladder."""
        if self._placed is None or self._free is None or self.padded:
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
                found = place(sizes, free, job.width, job.height)
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


def gpu_name(device: "torch.device") -> str:
    """The GPU's name; `cpu` without one."""
    import torch

    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else "cpu"


def free_memory() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _for_size(placed: Placement, sizes: Any, free: int, job: Job) -> Placement:
    """The largest batch of this size with the blocks where they are."""
    for batch in range(LARGEST_BATCH, 0, -1):
        peak = predicted_bytes(sizes, placed.streamed, batch, job.width, job.height)
        if peak <= free:
            return Placement(placed.streamed, batch, peak)
    return Placement(placed.streamed, 1, placed.predicted_bytes)


def _condition(job: Job) -> "Condition":
    from fluxkit.sampling.tables import Condition

    return Condition(job.prompt, job.width, job.height, job.num_inference_steps, job.guidance_scale)
