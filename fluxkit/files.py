"""Files that are whole or absent: written beside their place, then renamed over it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from fluxkit.errors import UserError

# It can only be read by setting it, which two threads that write must not do at once.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path, *, make_folder: bool = True) -> Iterator[Path]:
    """Yield a temporary path in `path`'s folder; on success it replaces `path`, on any failure it is removed.

    Args:
        path: the file.
        make_folder: whether its folder is made where it is missing.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last: writers such as Pillow choose the format by it.
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=f".tmp{path.suffix}")
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, contents: bytes) -> None:
    """Write `contents`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(contents)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically, with the line ends as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: object) -> None:
    """Write `data` as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that fluxkit wrote.

    Raises:
        UserError: it is missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cache_dir() -> Path:
    """The user's cache folder for fluxkit; `FLUXKIT_CACHE` moves it (a bigger disk, a test)."""
    override = os.environ.get("FLUXKIT_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("fluxkit"))


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a file that the system would not let be written, with what to do about it."""
    return UserError(
        f"{path} can't be written: {error.strerror or error}",
        fix="Free some disk space or check the folder's permissions, then run the same command again.",
    )


@contextmanager
def waiting_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file beside `path`; the system frees that of a process that was killed.

    Args:
        path: what it guards.
        on_wait: called before it waits for another process that has it.
    """
    guard = FileLock(f"{path}.lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        on_wait()
        guard.acquire()
    try:
        yield
    finally:
        guard.release()
