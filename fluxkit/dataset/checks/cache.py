"""Measurements kept from one `validate` to the next, by content: one SQLite file in the project's `cache/`.

A file is known again by its size and times; a new or changed one by the SHA-256 of its bytes, so that a renamed or
copied picture isn't measured again either. Whatever is odd about the cache (another version, a damaged row, a damaged
file, a full disk) only means measuring again.
"""

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from fluxkit.dataset.checks.measure import VERSION, Measured
from fluxkit.dataset.faces import Face

_BYTES = frozenset(field.name for field in fields(Measured) if field.type in (bytes, "bytes"))
_Result = TypeVar("_Result")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS measured (key TEXT PRIMARY KEY, data TEXT, crc INTEGER);
"""
FileState = tuple[int, ...]


class MeasureCache:
    """What was measured before; may be used from several threads.

    Args:
        file: the SQLite file, made when it is missing, replaced when it is none; None remembers nothing.
        detector: the face detector's name: its results are part of a measurement.
    """

    def __init__(self, file: Path | None, detector: str | None) -> None:
        self._suffix = f":{VERSION}:{detector or '-'}"
        self._lock = threading.Lock()
        self._database = _opened(file) if file else None

    def known(self, path: Path, state: FileState) -> tuple[str, Measured] | None:
        """The digest and the measurement of an unchanged file."""
        row = self._row("SELECT state, digest FROM files WHERE path = ?", bytes(path))
        if row is None or row[0] != _text(state) or not isinstance(row[1], str):
            return None
        measured = self.by_digest(row[1])
        return (row[1], measured) if measured else None

    def by_digest(self, digest: str) -> Measured | None:
        """The measurement of these bytes, under whatever name they were."""
        row = self._row("SELECT data, crc FROM measured WHERE key = ?", digest + self._suffix)
        return unpack(row[0], row[1]) if row else None

    def keep(self, path: Path, state: FileState, digest: str, measured: Measured) -> None:
        """Remember a file."""
        data, crc = pack(measured)

        def write(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", (digest + self._suffix, data, crc))
            database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (bytes(path), _text(state), digest))

        self._try(write)

    def close(self) -> None:
        """Save what is new."""
        self._try(lambda database: database.commit())
        with self._lock:
            self._close()

    def _row(self, query: str, key: bytes | str) -> Any:
        return self._try(lambda database: database.execute(query, (key,)).fetchone())

    def _try(self, action: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        with self._lock:
            if self._database is None:
                return None
            try:
                return action(self._database)
            except (sqlite3.Error, OverflowError):
                # A damaged page, a full disk, another process: go on without.
                self._close()
                return None

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def pack(measured: Measured) -> tuple[str, int]:
    """A measurement as JSON, and the CRC-32 of that."""
    data = asdict(measured)
    for name in _BYTES:
        data[name] = data[name].hex()
    text = json.dumps(data)
    return text, zlib.crc32(text.encode())


def unpack(text: Any, crc: Any) -> Measured | None:
    """The measurement, or None where the row is damaged."""
    if not isinstance(text, str) or zlib.crc32(text.encode("utf-8", "replace")) != crc:
        return None
    try:
        data = json.loads(text)
        data |= {name: bytes.fromhex(data[name]) for name in _BYTES}
        data["border"] = tuple(data["border"])
        if data["faces"] is not None:
            data["faces"] = tuple(Face(**face) for face in data["faces"])
        return Measured(**data)
    except (ValueError, TypeError, KeyError):
        return None


def _opened(file: Path) -> sqlite3.Connection | None:
    for attempt in (1, 2):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return _prepared(sqlite3.connect(file, timeout=5, check_same_thread=False))
        except sqlite3.OperationalError:
            return None  # another process writes for long, the disk is full: what is remembered stays
        except sqlite3.DatabaseError:
            if attempt == 1:
                with suppress(OSError):
                    file.unlink()
        except OSError:
            return None
    return None


def _prepared(database: sqlite3.Connection) -> sqlite3.Connection:
    try:
        # A lost cache costs a minute, a slow one costs it at every run.
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(_SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def _text(state: FileState) -> str:
    return ",".join(map(str, state))


def file_state(found: os.stat_result) -> FileState:
    """What changes when a file does: device, inode, size, times of the content and of the inode in nanoseconds."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
