"""The fast transformer in its place: put on the GPU by prediction, with the tables that each batch needs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fluxkit.errors import GpuMemoryError
from fluxkit.sampling.compiling import Timing, Timings, compile_blocks, wanted
from fluxkit.sampling.fast_loader import FastLoader
from fluxkit.sampling.gpu import free_gpu_bytes, free_memory, gpu_name
from fluxkit.sampling.memory import GIB, Placement, for_size, lower, place
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
        first_block_cache: threshold of the first-block cache; None leaves it off.

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
        *,
        first_block_cache: float | None = None,
    ) -> None:
        from fluxkit.sampling.tables import DeviceTables

        self._pipe, self._loader, self._notice = pipe, loader, notice
        self._loaded = loader.load(adapters, strength)
        self.modules, self.effect = self._loaded.modules, self._loaded.effect
        if first_block_cache is not None:
            self._loaded.keep_first_block(first_block_cache)
        free_memory()  # quantizing leaves some in torch's hands, which would not count as free
        self._free = free_gpu_bytes(loader.device)
        self._placed: Placement | None = None
        self._tables: dict[Condition, dict[str, torch.Tensor]] = {}
        self._placed_tables = DeviceTables(loader.device)
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
            if compiled and batch > 1 and self._loaded.model.first_block_cache is not None:
                compiled, why = False, "with the first-block cache a batch changes its size from step to step"
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
        self._place(batch[0], len(batch))
        conditions = [_condition(job) for job in batch]
        self._tabulate(conditions, pooled)
        self._loaded.model.begin(self._placed_tables.rows(self._tables, conditions))

    def prepare(self, jobs: Sequence[Job], pooled: "Mapping[str, torch.Tensor]") -> None:
        """Make the tables of many jobs in one reading of the adaLN weights (6.5 GB).

        Where memory does not suffice, each batch makes its own (`begin`), and gives up what it can for them.
        """
        import torch

        conditions = list(dict.fromkeys(_condition(job) for job in jobs))
        self._place(jobs[0], 1)
        with suppress(torch.OutOfMemoryError):
            for start in range(0, len(conditions), _TABLES_KEPT):
                self._tabulate(conditions[start : start + _TABLES_KEPT], pooled)
            return
        free_memory()

    def _tabulate(self, conditions: "Sequence[Condition]", pooled: "Mapping[str, torch.Tensor]") -> None:
        missing = {one: pooled[one.prompt] for one in conditions if one not in self._tables}
        if missing:
            made = self._loader.tables(self._loaded, self._pipe.scheduler, missing)
            # 42 MB each at 20 steps; what is let go is still on disk.
            kept = {one: table for one, table in self._tables.items() if one in conditions}
            if len(self._tables) + len(made) <= _TABLES_KEPT:
                kept = self._tables
            self._tables = {**kept, **made}

    def report_saved(self) -> None:
        """Say what the first-block cache saved since the last time, where it is on."""
        cache = self._loaded.model.first_block_cache
        if cache is not None and cache.passes.all:
            self._notice(cache.take_passes().describe())

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
                        fix="Close other programs that use the GPU, or make smaller images: --size 768x768. "
                        + self._in_nf4(free, job, streamed=True),
                    )
                placed = found
                hint = self._in_nf4(free, job, streamed=False) if placed.streamed else ""
                self._notice(f"The model: {placed.describe()} of {free / GIB:.1f} GiB free. {hint}".rstrip())
            self._placed = self._settle(placed)
            self._pipe.transformer = self._loaded.model
        if free is None:
            return self._placed
        return self._placed if batch else for_size(self._placed, sizes, free, job.width, job.height)

    def _in_nf4(self, free: int, job: Job, *, streamed: bool) -> str:
        """A hint where 4 bits would fit; never chosen by itself: its pictures are beyond the bound.

        Args:
            free: bytes on the GPU.
            job: with the pictures' size.
            streamed: whether it helps if blocks are streamed with nf4 too.
        """
        if self._loaded.model.kind == "nf4":
            return ""
        found = place(self._loaded.sizes_in_nf4(), free, job.width, job.height)
        if found is None or (found.streamed and not streamed):
            return ""
        return (
            f"nf4 would fit ({found.describe()}); add --quantize nf4. "
            "Its 4 bits change the pictures more: docs/sampling-speed.md."
        )

    def _settle(self, placed: Placement) -> Placement:
        """Bring the weights to where they work; where the prediction was wrong, with more blocks streamed."""
        import torch

        while True:
            try:
                self._loaded.settle(self._loader.device, placed.streamed)
                return placed
            except torch.OutOfMemoryError:
                streamed = lower(self._loaded.sizes, placed.streamed)
            except OSError:
                if self._loaded.file is None:
                    raise
                self._loaded = self._loader.again(self._loaded)
                continue
            free_memory()  # outside of `except`, whose traceback holds the tensors
            if streamed is None:
                raise GpuMemoryError(
                    "The model does not fit the GPU's memory, not even with its blocks in RAM.",
                    fix="Close other programs that use the GPU.",
                )
            placed = Placement(streamed, 1, placed.predicted_bytes)
            self._notice(f"GPU memory ran out; {streamed} of the model's blocks are streamed from RAM from now on.")


def _condition(job: Job) -> "Condition":
    from fluxkit.sampling.tables import Condition

    return Condition(job.prompt, job.width, job.height, job.num_inference_steps, job.guidance_scale)
