"""Several files of a project changed as one: all of them or none, through a journal on disk.

The new contents are written into a folder beside the files, and that folder's rename is the moment of decision: killed
before it, the project is as it was; after it, the next fluxkit command finds the folder and finishes the switch.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from fluxkit.errors import UserError
from fluxkit.files import write_bytes

_PREPARING = ".fluxkit-switch.new"
_DECIDED = ".fluxkit-switch"
_DONE = ".fluxkit-switch.done"
_LOCK = ".fluxkit-switch.lock"
_JOURNAL = "journal.json"


def switch(root: Path, files: Mapping[str, bytes], *, before: Mapping[str, bytes | None]) -> None:
    """Replace the project's files by new ones.

    Args:
        root: the project's folder.
        files: name → new contents.
        before: name → the contents that the new ones were made from (None: no such file); where they differ by now,
            nothing is changed.

    Raises:
        UserError: a file was edited meanwhile, the disk is full or the folder can't be written; nothing is changed.
    """
    with FileLock(root / _LOCK):
        _finish(root)
        for name, expected in before.items():
            if contents(root / name) != expected:
                raise UserError(
                    f"{root / name} was changed while fluxkit worked; nothing was switched.",
                    fix="Run the same command again.",
                )
        preparing = root / _PREPARING
        try:
            preparing.mkdir()
            for name, new in files.items():
                write_bytes(preparing / name, new)
            write_bytes(preparing / _JOURNAL, json.dumps({name: _digest(files[name]) for name in files}).encode())
            _sync(preparing)
            preparing.rename(root / _DECIDED)
            _sync(root)
        except OSError as error:
            raise UserError(
                f"{root} can't be written: {error.strerror or error}; nothing was switched.",
                fix="Free some disk space or check the folder's permissions, then run the same command again.",
            ) from error
        _finish(root)


def recover(root: Path) -> bool:
    """Finish a switch that was cut short after its moment of decision, and clear away one from before it.

    Returns:
        Whether one was finished.

    Raises:
        UserError: it can't be finished (no disk space, say); the next command tries again.
    """
    if not any((root / name).exists() for name in (_PREPARING, _DECIDED, _DONE)):
        return False
    with FileLock(root / _LOCK):
        return _finish(root)


def _finish(root: Path) -> bool:
    decided = root / _DECIDED
    found = decided.is_dir()
    if found:
        _apply(root, decided)
        # Renamed before it is emptied: half a journal must never be taken for a whole one.
        shutil.rmtree(root / _DONE, ignore_errors=True)
        decided.rename(root / _DONE)
    for name in (_PREPARING, _DONE):
        shutil.rmtree(root / name, ignore_errors=True)
    return found


def _apply(root: Path, decided: Path) -> None:
    digests: dict[str, str] = json.loads((decided / _JOURNAL).read_text(encoding="utf-8"))
    found = {name: (decided / name).read_bytes() for name in digests}
    if any(_digest(found[name]) != digest for name, digest in digests.items()):
        raise UserError(
            f"{decided} is damaged: an unfinished upgrade can't be completed.",
            fix="Compare the files in it with those of the project, copy over what you want, then delete the folder.",
        )
    for name, new in found.items():
        if contents(root / name) != new:
            # The copy lies in the journal's folder: killed here, nothing is left beside the user's files.
            copy = decided / f"{name}.copy"
            write_bytes(copy, new)
            copy.replace(root / name)


def contents(path: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    return path.read_bytes() if path.is_file() else None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(folder: Path) -> None:
    """Make the folder's names survive a power cut, not only a kill."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
