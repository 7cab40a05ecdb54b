"""How the model is held on a GPU of so much free memory: predicted, never tried out in front of the user.

The ladder: all blocks on the GPU, then as many as fit with the others streamed from the host's memory. Batches shrink
before the ladder is climbed down. The adaLN tables (`tables.py`) are used on every rung: 8.7 instead of 11.9 GB.
"""

from dataclasses import dataclass

GIB = 2**30
# Beside the weights, for one picture of 1024×1024. Measured on an H100 with fp8 blocks: 8.31 GiB at rest, peaks while
# denoising 1, 2 and 4 pictures 8.71, 9.11 and 9.90 (bf16: 0.47 for one), and 2.05 while decoding one with
# `expandable_segments` (2.42 without: the allocator's pieces don't fit together).
GIB_PER_IMAGE = 0.5
GIB_DECODE = 2.1
GIB_RESERVED = 0.4
LARGEST_BATCH = 4


@dataclass(frozen=True)
class Weights:
    """What a model's weights take.

    Args:
        frame_bytes: embedders and what else is always on the GPU, VAE included.
        block_bytes: of each block, in the order in which they work.
    """

    frame_bytes: int
    block_bytes: tuple[int, ...]


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
    working = max(batch * GIB_PER_IMAGE, GIB_DECODE) * area + GIB_RESERVED
    return weights.frame_bytes + sum(kept) + lent + int(working * GIB)


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


def lower(weights: Weights, streamed: int) -> int | None:
    """How many blocks to stream after memory ran out with `streamed`; None at the end of the ladder."""
    blocks = len(weights.block_bytes)
    if streamed >= blocks:
        return None
    return min(blocks, max(streamed + 1, streamed + blocks // 4))
