"""What became of each image, a line each: appended while a run goes on, folded into `manifest.json` when it ends.

Rewriting the manifest for each image would take a time that grows with the square of their number.

A line is in the kernel's hands when `append` returns, so a killed process loses none. It is not forced onto the
disk (no fsync): a power cut loses the lines of about the last half minute, and those images, which the ledger then
does not know, are made again. Images and manifest are forced onto the disk before they are renamed into place.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import cannot_write, read_json, write_text

MANIFEST = "manifest.json"
JOURNAL = "manifest.journal"
_FORMAT = 1

Entries = dict[str, dict[str, Any]]


def read_entries(folder: Path) -> Entries:
    """What is known of each image, by job hash, in the order they were made; safe beside a running writer.

    Raises:
        UserError: the manifest is damaged, or of another version of fluxkit.
    """
    # The journal first: a run that ends in between has folded it into the manifest that is read then.
    lines = _lines(folder / JOURNAL)
    return {**_manifest(folder / MANIFEST), **lines}


def write_manifest(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `manifest.json`, atomically, one image a line, and end the journal.

    A kill between the two leaves a journal that repeats what the manifest says.

    Raises:
        UserError: the disk is full or the folder can't be written; the journal is then still there.
    """
    lines = (f"{json.dumps(key)}: {json.dumps(entry, ensure_ascii=False)}" for key, entry in entries.items())
    text = f'{{"format": {_FORMAT}, "images": {{\n' + ",\n".join(lines) + "\n}}\n"
    write_text(folder / MANIFEST, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    (folder / JOURNAL).unlink(missing_ok=True)


class Journal:
    """The open end of a folder's journal; one writer at a time (`open_ledger` sees to it)."""

    def __init__(self, folder: Path) -> None:
        """Open it for appending.

        Raises:
            UserError: the folder can't be written.
        """
        self._path = folder / JOURNAL
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def append(self, key: str, entry: Mapping[str, Any]) -> None:
        """Record an image.

        Raises:
            UserError: the disk is full.
        """
        line = json.dumps({"key": key, **entry}).encode("ascii") + b"\n"
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a disk that is nearly full takes a part, then raises
                written += os.write(self._fd, line[written:])
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _manifest(path: Path) -> Entries:
    if not path.is_file():
        return {}
    data = read_json(path)
    images = data.get("images") if isinstance(data, dict) and data.get("format") == _FORMAT else None
    if not isinstance(images, dict) or not all(isinstance(one, dict) and "file" in one for one in images.values()):
        raise UserError(
            f"{path} is damaged, or of another version of fluxkit.",
            fix="Move the folder away, or choose another --out folder.",
        )
    return dict(images)


def _lines(path: Path) -> Entries:
    """A journal's entries. A line that was cut off by a kill, a full disk or a power cut is as if never written."""
    entries: Entries = {}
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return entries
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}", fix="Check its permissions.") from error
    for line in data.split(b"\n"):
        try:
            entry = json.loads(line) if line else None
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("file"), str) and "key" in entry:
            entries[str(entry.pop("key"))] = entry
    return entries
