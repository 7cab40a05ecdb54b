"""What a folder of images already has, by job hash: asked at each start, told of each image, by one run at a time.

That an image is still whole is asked of the file system alone: size and time of change are what they were when it was
recorded. Where only the time differs (the folder was copied), the file's SHA-256 decides. So ten thousand images are
looked through without opening one, and a file that was cut off or painted over is still noticed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fluxkit.errors import UserError
from fluxkit.files import sha256_file
from fluxkit.sampling.journal import JOURNAL, MANIFEST, Entries, Journal, read_entries, write_manifest
from fluxkit.sampling.plan import ImageFormat, Job

__all__ = ["MANIFEST", "Ledger", "open_ledger", "read_entries"]

_LOCK = ".lock"


@dataclass
class Ledger:
    """The images of one folder. Open it with `open_ledger`, which keeps others out.

    Args:
        folder: where the images are.
        entries: what is known of each image, by job hash, in the order they were made: its `file`, `bytes`,
            `sha256`, `mtime_ns`, and the facts given to `add`.
        verify: whether to read every image again instead of trusting its size and time.
    """

    folder: Path
    entries: Entries = field(default_factory=dict)
    verify: bool = False
    _journal: Journal | None = None
    _changed: bool = False
    _verified: set[str] = field(default_factory=set)
    _place: tuple[int, int] | None = None

    def has(self, key: str) -> bool:
        """Whether this image was made, and is still there and whole."""
        entry = self.entries.get(key)
        if entry is None:
            return False
        path = self.folder / str(entry["file"])
        try:
            stat = path.stat()
            if "sha256" not in entry:  # recorded by fluxkit 0.1
                if not _decodes(path):
                    return False
                self._seen(entry, path)
            if stat.st_size != entry.get("bytes"):
                return False
            if stat.st_mtime_ns != entry.get("mtime_ns") or (self.verify and key not in self._verified):
                if sha256_file(path) != entry["sha256"]:
                    return False
                self._seen(entry, path)
                self._verified.add(key)
            return True
        except OSError:
            return False

    def add(self, key: str, path: Path, facts: dict[str, Any]) -> None:
        """Record an image that was written.

        Raises:
            UserError: the disk is full, or the folder or the image is gone.
        """
        self.check_folder()
        entry: dict[str, Any] = {"file": path.name}
        try:
            self._seen(entry, path)
        except OSError as error:
            raise UserError(
                f"{path} was written and can't be read again: {error.strerror or error}",
                fix="Check the disk, then run the same command again.",
            ) from error
        entry.update(facts)
        if self._journal is None:
            self._journal = Journal(self.folder)
        self._journal.append(key, entry)
        self.entries[key] = entry

    def path_for(self, key: str, job: Job, image_format: ImageFormat = "png") -> Path:
        """Where a job's image goes: readable, and unlike any other job's."""
        name = re.sub(r"[^\w-]+", "-", job.prompt_name).strip("-")[:60] or "image"
        return self.folder / f"{name}-{job.seed}-{key[:10]}.{image_format}"

    def check_folder(self) -> None:
        """Check that the folder is the one that was opened.

        Raises:
            UserError: it was deleted, moved away, or its disk unmounted.
        """
        if self._place is not None and _place(self.folder) != self._place:
            raise folder_gone(self.folder)

    def close(self) -> None:
        """Fold the journal into the manifest, if there is something to fold.

        Raises:
            UserError: the disk is full or the folder is gone; nothing that was recorded is lost.
        """
        if self._journal is not None:
            self._journal.close()
            self._journal, self._changed = None, True
        if self._changed:
            self.check_folder()
            write_manifest(self.folder, self.entries)
            self._changed = False

    def _seen(self, entry: dict[str, Any], path: Path) -> None:
        """Note how a whole file looks from outside."""
        stat = path.stat()
        facts: dict[str, Any] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if entry.get("mtime_ns") != stat.st_mtime_ns:
            facts["sha256"] = sha256_file(path)
            self._changed = True
        entry.update(facts)


def folder_gone(folder: Path) -> UserError:
    """The error for a folder that was there when the run began."""
    return UserError(
        f"The folder {folder} is gone: deleted, moved away, or its disk was unplugged.",
        fix="Put it back and run the same command again: what is in it is kept.",
    )


@contextmanager
def open_ledger(folder: Path, *, verify: bool = False) -> Iterator[Ledger]:
    """Open a folder's ledger for one run alone; what a killed run left half-written is cleared away.

    Args:
        folder: where the images are; made if missing.
        verify: whether `has` reads every image again instead of trusting its size and time.

    Raises:
        UserError: another run writes into the folder, the folder can't be written, or the manifest is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"Another fluxkit makes images in {folder} right now.", fix="Wait for it, or choose another --out folder."
        ) from error
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}", fix="Check the path and its permissions.") from error
    try:
        _sweep(folder)
        ledger = Ledger(folder, read_entries(folder), verify, _place=_place(folder))
        if (folder / JOURNAL).exists():  # of a run that was killed; its last line may be half a line
            write_manifest(folder, ledger.entries)
        try:
            yield ledger
        except BaseException:
            # The journal has it all, and what went wrong first is what the user should read.
            with suppress(UserError):
                ledger.close()
            raise
        ledger.close()
    finally:
        with suppress(OSError):
            _sweep(folder)  # of workers that died
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove the temporary files of what was killed: the lock says that nobody is writing them."""
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            if entry.is_dir(follow_symlinks=False):  # the gallery's thumbnails
                _sweep(Path(entry.path))
            elif ".tmp" in entry.name:
                Path(entry.path).unlink(missing_ok=True)


def _place(folder: Path) -> tuple[int, int] | None:
    """What tells a folder from another of the same name: an unplugged disk leaves an empty one behind."""
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _decodes(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a damaged PNG
        return False
    return True
