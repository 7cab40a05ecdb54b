"""What the pictures have in common: copies, near copies, the same background, clothes or pose.

A few hundred bytes are kept of each picture; everything is compared with everything for at most 1,000 pictures, evenly
taken from the folder.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fluxkit.dataset.checks.engine import MeasuredFile
from fluxkit.dataset.checks.hashes import group_alike
from fluxkit.dataset.model import Finding

_COMPARED = 1000
# Fewer than these say nothing about variety.
_FEWEST = 6
_MOST_ALIKE = 0.6
# Euclidean distance of embeddings of length 1; set in tests/dataset/checks/test_gallery.py on pictures made alike.
_SAME = {"background": 0.36, "clothes": 0.4, "pose": 0.42}
_WORDS = {
    "background": ("background", "in other places"),
    "clothes": ("clothes", "in other clothes"),
    "pose": ("pose and framing", "from other angles and distances"),
}


@dataclass
class Gallery:
    """Collects what is compared.

    Args:
        expected: how many pictures will come, to take a sample evenly.
    """

    expected: int
    _paths: list[Path] = field(default_factory=list)
    _digests: list[str] = field(default_factory=list)
    # Numbers side by side, no objects: 200 bytes a picture, however many.
    _hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    _thumbs: bytearray = field(default_factory=bytearray)
    _sample: dict[str, list[tuple[Path, bytes]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, file: MeasuredFile) -> None:
        """Take a readable picture."""
        measured = file.measured
        step = -(-max(1, self.expected) // _COMPARED)
        if len(self._paths) % step == 0:
            for kind in _SAME:
                embedding: bytes = getattr(measured, kind)
                if embedding:
                    self._sample[kind].append((file.path, embedding))
        self._paths.append(file.path)
        self._digests.append(file.digest)
        self._hashes.append(int(measured.phash, 16))
        self._thumbs += measured.thumb

    def findings(self, folder: Path, *, person: bool = True) -> Iterator[Finding]:
        """Duplicates, each group once; then what too many pictures share."""
        yield from self._duplicates()
        for kind in _SAME:
            if person or kind != "clothes":
                yield from _variety(folder, kind, self._sample[kind])

    def _duplicates(self) -> Iterator[Finding]:
        first: dict[str, int] = {}
        copies: dict[int, list[Path]] = defaultdict(list)
        for index, digest in enumerate(self._digests):
            original = first.setdefault(digest, index)
            if original != index:
                copies[original].append(self._paths[index])
        for original, same in copies.items():
            message = f"The same file {_times(len(same))} more: {_names(same)}."
            fix = "Keep one: training would show it that much more often than the others."
            yield Finding("image.duplicate", "warning", self._paths[original], message, fix, tuple(same))
        kept = np.fromiter(first.values(), dtype=np.intp, count=len(first))
        if not len(kept):
            return
        colours = np.frombuffer(self._thumbs, dtype=np.uint8).reshape(len(self._hashes), -1)
        for group in group_alike(np.array(self._hashes)[kept], colours, kept):
            paths = [self._paths[at] for at in group]
            message = f"Looks nearly the same as {_names(paths[1:])}."
            fix = "Keep the best one: the LoRA learns what is repeated."
            yield Finding("image.near-duplicate", "warning", paths[0], message, fix, tuple(paths[1:]))


def _variety(folder: Path, kind: str, sample: list[tuple[Path, bytes]]) -> Iterator[Finding]:
    if len(sample) < _FEWEST:
        return
    levels = np.frombuffer(b"".join(embedding for _, embedding in sample), dtype=np.uint8)
    vectors = levels.reshape(len(sample), -1).astype(np.float64) / 255
    squares = (vectors**2).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T
    near = distances <= _SAME[kind] ** 2
    # The picture with the most others around it: no chain of small steps from one look to another.
    typical = int(near.sum(axis=1).argmax())
    alike = [sample[index][0] for index in np.flatnonzero(near[typical])]
    if len(alike) > _MOST_ALIKE * len(sample):
        what, where = _WORDS[kind]
        compared = "" if len(sample) < _COMPARED else " compared"
        message = (
            f"{len(alike)} of {len(sample)} pictures{compared} have nearly the same {what}: the LoRA learns it too."
        )
        fix = f"Add photos {where}, or leave some of these out."
        code = {"background": "variety.background", "clothes": "variety.clothes", "pose": "variety.pose"}[kind]
        yield Finding(code, "warning", folder, message, fix, tuple(alike))


def _names(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:5])
    return names if len(paths) <= 5 else f"{names} and {len(paths) - 5} more"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
