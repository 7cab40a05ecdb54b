"""File names in the prepared copy: like the originals', but safe, and no two with one stem."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

# Control characters, line ends, direction marks and what Windows forbids in a name.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\:*?"<>|]')
_LONGEST = 120  # bytes of UTF-8 of one part of a path, the suffix not counted


def output_stems(sources: Iterable[str]) -> dict[str, str]:
    """A stem (path without suffix) for each source, in the order given.

    `a.jpg` and `a.png` would share one caption, and `A.jpg` and `a.jpg` one file on some disks: the first keeps the
    stem, the others add their suffix or a number. The result depends on the sources alone.

    Args:
        sources: relative paths with `/`.
    """
    taken: set[str] = set()
    stems = {}
    for source in sources:
        path = PurePosixPath(source)
        folder = [_safe(part) for part in path.parent.parts]
        stem = _safe(path.stem)
        tries = [stem, f"{stem}-{path.suffix[1:].lower()}"]
        number = 2
        while (key := _folded([*folder, tries[0]])) in taken:
            tries.pop(0)
            if not tries:
                tries.append(f"{stem}-{number}")
                number += 1
        taken.add(key)
        stems[source] = "/".join([*folder, tries[0]])
    return stems


def shown(path: str) -> str:
    """A relative path as text that any terminal and any JSON file takes; bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _safe(part: str) -> str:
    part = _UNSAFE.sub("_", unicodedata.normalize("NFC", part)).strip(" ")
    while len(part.encode()) > _LONGEST:
        part = part[:-1]
    # Hidden files are passed over by the trainer.
    return part.lstrip(".") or "photo"


def _folded(parts: list[str]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts).casefold())
