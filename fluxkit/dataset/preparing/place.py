"""Files put into the copy, so that nothing of the user's is ever lost and a kill leaves a copy that can be mended."""

import hashlib
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from fluxkit.dataset.preparing.manifest import ASIDE_FOLDER, JOURNAL_FILE, PHOTOS_FOLDER, PreparedPhoto, Recipe
from fluxkit.files import atomic_path, sha256_file, write_text


@dataclass
class Workshop:
    """The folder `prepared/` while `prepare` works in it.

    Args:
        folder: `prepared/` itself.
        known: file below `photos/` → every hash that prepare itself gave it.
        aside: what was moved out of the way: where it was → where it is.
    """

    folder: Path
    known: Mapping[str, Set[str]]
    aside: dict[Path, Path] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        """Where a file of the copy lies."""
        return self.folder / PHOTOS_FOLDER / file

    def begin(self, recipe: Recipe) -> None:
        """Open the journal: from now on the copy counts as interrupted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = self.folder / ".gitignore"
        if not ignore.exists():  # a project's own may be older than this folder's name
            write_text(ignore, "*\n")
        self._journal(recipe.model_dump_json())

    def announce(self, photo: PreparedPhoto) -> None:
        """Write a picture's record down before its files are put in place."""
        self._journal(photo.model_dump_json())

    def write(self, file: str, data: bytes) -> None:
        """Put a file in place; what lies there and is not prepare's own is moved aside."""
        path = self.path(file)
        if self.holds(file, hashlib.sha256(data).hexdigest()):
            return
        if self.is_foreign(file):
            self.set_aside(file)
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    def remove(self, file: str) -> None:
        """Take a stale file away; one that is not prepare's own is moved aside instead."""
        if self.is_foreign(file):
            self.set_aside(file)
        else:
            self.path(file).unlink(missing_ok=True)

    def holds(self, file: str, sha256: str) -> bool:
        """Whether a file is there with these contents."""
        path = self.path(file)
        return path.is_file() and sha256_file(path) == sha256

    def is_foreign(self, file: str) -> bool:
        """Whether a file is there whose contents prepare did not make: edited, or put there by somebody."""
        path = self.path(file)
        if path.is_file() and not path.is_symlink():
            return sha256_file(path) not in self.known.get(file, set())
        return path.is_symlink() or path.exists()

    def set_aside(self, file: str) -> None:
        """Move a file to `set-aside/`, beside whatever lies there already."""
        source, wanted = self.path(file), self.folder / ASIDE_FOLDER / file
        target, number = wanted, 2
        while target.exists() or target.is_symlink():
            target, number = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}"), number + 1
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)  # noqa: PTH104 - the link itself, not what it points to
        self.aside[source] = target

    def tidy(self) -> None:
        """Remove folders that hold nothing any more."""
        photos = self.folder / PHOTOS_FOLDER
        for parent, _, _ in os.walk(photos, topdown=False):
            if Path(parent) != photos and not any(Path(parent).iterdir()):
                Path(parent).rmdir()

    def _journal(self, line: str) -> None:
        with (self.folder / JOURNAL_FILE).open("a", encoding="utf-8") as journal:
            journal.write(line + "\n")
