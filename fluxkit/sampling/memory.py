"""How the model is held on a GPU of so much free memory: predicted, never tried out in front of the user.

The ladder: all blocks on the GPU, then as many as fit with the others streamed from the host's memory. Batches shrink
before the ladder is climbed down. The adaLN tables (`tables.py`) are used on every rung: 8.7 instead of 11.9 GB.
"""

from dataclasses import dataclass

GIB = 2**30
# Beside the weights, at 1024×1024. Measured on an H100 with fp8 blocks: 0.40 GiB for each picture while denoising 1, 2
# and 4 (bf16: 0.47), 1.50 while decoding one (`fast_vae.py`; 2.38 with PyTorch's GroupNorm, where no kernels are).
GIB_PER_IMAGE = 0.5
GIB_DECODE = 1.7
# What the weights' sum leaves out: VAE 0.09, tables and prompt 0.06, the allocator's gaps 0.32 (`expandable_segments`
# on), the libraries' kernels 0.27, by PyTorch and NVML in a whole `fluxkit sample`.
GIB_RESERVED = 0.75
# Of the first-block cache: four times 4,096 tokens of 3,072 numbers in bfloat16, counted.
GIB_FIRST_BLOCK = 0.1
LARGEST_BATCH = 4


@dataclass(frozen=True)
class Weights:
    """What a model's weights take.

    Args:
        frame_bytes: embedders and what else of the transformer is always on the GPU.
        block_bytes: of each block, in the order in which they work.
        working_bytes: what one layer needs besides while it works: nf4's weight, unpacked.
        kept_gib_per_image: what is kept of each picture of 1024×1024 from step to step.
    """

    frame_bytes: int
    block_bytes: tuple[int, ...]
    working_bytes: int = 0
    kept_gib_per_image: float = 0.0


@dataclass(frozen=True)
class Placement:
    """A rung of the ladder.

    Args:
        streamed: blocks, the last ones, that stay in the host's memory.
        batch: pictures at once.
        predicted_bytes: the peak on the GPU.
    """

    streamed: int
    batch: int
    predicted_bytes: int

    def describe(self) -> str:
        """For people."""
        where = f"{self.streamed} blocks streamed from RAM" if self.streamed else "all on the GPU"
        pictures = "1 picture" if self.batch == 1 else f"{self.batch} pictures"
        return f"{where}, {pictures} at a time, about {self.predicted_bytes / GIB:.1f} GiB"


def predicted_bytes(weights: Weights, streamed: int, batch: int, width: int, height: int) -> int:
    """The peak on the GPU: weights, two blocks on their way where blocks are streamed, and what pictures need."""
    kept = weights.block_bytes[: len(weights.block_bytes) - streamed]
    lent = 2 * max(weights.block_bytes[len(kept) :], default=0)
    area = max(width * height / 1024**2, 0.25)
    working = max(batch * (GIB_PER_IMAGE + weights.kept_gib_per_image), GIB_DECODE) * area + GIB_RESERVED
    return weights.frame_bytes + sum(kept) + lent + weights.working_bytes + int(working * GIB)


def place(weights: Weights, free_bytes: int, width: int, height: int, batch: int | None = None) -> Placement | None:
    """The highest rung that fits.

    Args:
        weights: of the model.
        free_bytes: on the GPU, before anything of the model is there.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        batch: pictures at once, where the user says so; else the largest that fits, up to 4.

    Returns:
        None where not even streaming every block makes it fit.
    """
    batches = [batch] if batch else list(range(LARGEST_BATCH, 0, -1))
    for streamed in range(len(weights.block_bytes) + 1):
        # More pictures at once is worth a few percent; a streamed block costs more: so all batches first.
        for size in batches:
            peak = predicted_bytes(weights, streamed, size, width, height)
            if peak <= free_bytes:
                return Placement(streamed, size, peak)
    return None


def for_size(placed: Placement, weights: Weights, free_bytes: int, width: int, height: int) -> Placement:
    """The largest batch of another size with the blocks where they are."""
    for batch in range(LARGEST_BATCH, 0, -1):
        peak = predicted_bytes(weights, placed.streamed, batch, width, height)
        if peak <= free_bytes:
            return Placement(placed.streamed, batch, peak)
    return Placement(placed.streamed, 1, placed.predicted_bytes)


def lower(weights: Weights, streamed: int) -> int | None:
    """How many blocks to stream after memory ran out with `streamed`; None at the end of the ladder."""
    blocks = len(weights.block_bytes)
    if streamed >= blocks:
        return None
    return min(blocks, max(streamed + 1, streamed + blocks // 4))
