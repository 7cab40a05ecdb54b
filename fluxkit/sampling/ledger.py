"""What a folder of images already has: `manifest.json`, by job hash, written after each image."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fluxkit.errors import UserError
from fluxkit.files import read_json, write_json
from fluxkit.sampling.plan import Job

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass
class Ledger:
    """The images of one folder. Open it with `open_ledger`, which keeps others out.

    Args:
        folder: where the images are.
        entries: what is known of each image, by job hash, in the order they were made.
    """

    folder: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has(self, key: str) -> bool:
        """Whether this image was made, and is still there and whole."""
        from PIL import Image

        entry = self.entries.get(key)
        if entry is None:
            return False
        try:
            with Image.open(self.folder / str(entry["file"])) as image:
                image.load()
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for a damaged PNG
            return False
        return True

    def add(self, key: str, path: Path, facts: dict[str, Any]) -> None:
        """Record an image that was written."""
        self.entries[key] = {"file": path.name, **facts}
        write_json(self.folder / MANIFEST, {"format": _FORMAT, "images": self.entries})

    def path_for(self, key: str, job: Job) -> Path:
        """Where a job's image goes: readable, and unlike any other job's."""
        name = re.sub(r"[^\w-]+", "-", job.prompt_name).strip("-")[:60] or "image"
        return self.folder / f"{name}-{job.seed}-{key[:10]}.png"


@contextmanager
def open_ledger(folder: Path) -> Iterator[Ledger]:
    """Open a folder's ledger for one run alone.

    Raises:
        UserError: another run writes into the folder, the folder can't be written, or the manifest is damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"Another fluxkit makes images in {folder} right now.", fix="Wait for it, or choose another --out folder."
        ) from error
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error}", fix="Check the path and its permissions.") from error
    try:
        yield Ledger(folder, _entries(folder / MANIFEST))
    finally:
        lock.release()


def _entries(path: Path) -> dict[str, dict[str, Any]]:
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
