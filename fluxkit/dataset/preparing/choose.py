"""Which of several pictures that look the same is the best one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fluxkit.dataset.checks.hashes import group_alike
from fluxkit.dataset.preparing.sources import Seen


@dataclass(frozen=True)
class Duplicate:
    """A picture that another one stands for, and how that one is better."""

    instead: str
    why: str


def near_duplicates(seen: Mapping[str, Seen]) -> dict[str, Duplicate]:
    """The pictures to leave out: of each group that looks the same, all but the best.

    The best has the most pixels; among equals the sharpest, then the largest file (the least compressed), then the
    first by name. Each one left out resembles the kept one itself, not merely another one left out.
    """
    # `group_alike` lets each group's first one lead: the best come first.
    if not seen:
        return {}
    names = sorted(seen, key=lambda name: (*(-value for value in _rank(seen[name])), name))
    found = {}
    hashes = np.array([int(seen[name].phash, 16) for name in names], dtype=np.uint64)
    colours = np.frombuffer(b"".join(seen[name].thumb for name in names), dtype=np.uint8).reshape(len(names), -1)
    for group in group_alike(hashes, colours):
        best = names[group[0]]
        for index in group[1:]:
            found[names[index]] = Duplicate(best, _why(seen[best], seen[names[index]]))
    return dict(sorted(found.items()))


def _rank(seen: Seen) -> tuple[float, float, int]:
    # Sharpness in steps: the same picture saved twice differs in the third decimal.
    return seen.width * seen.height, round(seen.sharpness, 2), seen.original.bytes


def _why(best: Seen, other: Seen) -> str:
    better, worse = _rank(best), _rank(other)
    if better[0] != worse[0]:
        return f"which is larger ({best.width}×{best.height}, not {other.width}×{other.height})"
    if better[1] != worse[1]:
        return "which is sharper"
    if best.original.sha256 == other.original.sha256:
        return "which is the same file"
    return "which is less compressed" if better[2] != worse[2] else "which is as good"
