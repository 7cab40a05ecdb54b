"""First-block cache: steps that would change little reuse what the last full step added. Lossy, and off by default.

As in ParaAttention and diffusers (`apply_first_block_cache`): the first double block always works; where the change
that it makes is near the one it made at the last full step, the other blocks' change is taken from then. Unlike there,
it is decided for each picture by itself, so that a picture does not depend on what else is in its batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch  # noqa: TID253 - as in fastflux.py

Rest = Callable[[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class BlockPasses:
    """Blocks times steps times pictures.

    Args:
        all: without the cache.
        saved: of these, not made.
    """

    all: int = 0
    saved: int = 0

    def __add__(self, other: "BlockPasses") -> "BlockPasses":
        return BlockPasses(self.all + other.all, self.saved + other.saved)

    def describe(self) -> str:
        """For people."""
        share = self.saved / self.all if self.all else 0.0
        return f"First-block cache (lossy): {self.saved:,} of {self.all:,} block passes saved ({share:.0%})."


class FirstBlockCache:
    """What one batch keeps from step to step.

    Args:
        threshold: the largest relative change, mean |r - r'| / mean |r'|, at which a step is not computed; r is what
            the first block adds to the picture's tokens, r' what it added at the last step that was computed.
        blocks: of the model, the first included.
    """

    def __init__(self, threshold: float, blocks: int) -> None:
        self.threshold, self._blocks = threshold, blocks
        self.passes = BlockPasses()
        self.begin()

    def begin(self) -> None:
        """Forget the batch before."""
        self._first: torch.Tensor | None = None
        self._rest: torch.Tensor | None = None
        self._seen = BlockPasses()

    def finish(self) -> None:
        """The batch is through: count it, and free what was kept before the pictures are decoded."""
        self.passes += self._seen
        self.begin()

    def take_passes(self) -> BlockPasses:
        """What was counted since the last time."""
        passes, self.passes = self.passes, BlockPasses()
        return passes

    def through(
        self,
        added: torch.Tensor,
        image: torch.Tensor,
        text: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
        rest: Rest,
    ) -> torch.Tensor:
        """The image's tokens after all blocks.

        Args:
            added: what the first block changed of them, (batch, tokens, width).
            image: after the first block, (batch, tokens, width).
            text: after the first block, (batch, text tokens, width).
            rows: of the tables, (batch, outputs) by norm.
            rest: the other blocks, for some pictures of the batch; may change its arguments.
        """
        batch = image.shape[0]
        chosen = self._changed(added)
        self._seen += BlockPasses(batch * self._blocks, (batch - len(chosen)) * (self._blocks - 1))
        if self._first is None or self._rest is None or len(chosen) == batch:
            self._first = self._rest = None  # their memory is for the blocks
            before = image.clone()
            result = rest(image, text, rows)
            self._first, self._rest = added, result - before
            return result
        result = image + self._rest
        if chosen:
            index = torch.tensor(chosen, device=image.device)
            computed = rest(image[index], text[index], {name: row[index] for name, row in rows.items()})
            self._first[index], self._rest[index] = added[index], computed - image[index]
            result[index] = computed
        return result

    def _changed(self, added: torch.Tensor) -> list[int]:
        """The pictures of the batch that must be computed."""
        if self._first is None:
            return list(range(added.shape[0]))
        # Picture by picture: a sum over the whole batch is split up in another way, and its last bits differ.
        changes = [
            (now.float() - then.float()).abs().mean() / then.float().abs().mean()
            for now, then in zip(added, self._first, strict=True)
        ]
        # One wait for the GPU a step. Not a number, from an overflow, counts as a change.
        return [number for number, one in enumerate(torch.stack(changes).tolist()) if not one <= self.threshold]
