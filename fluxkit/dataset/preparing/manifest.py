"""`prepared/manifest.json`: which file was made from which, how, and what was left out; and the journal of a run.

The journal holds a line for each file that is about to be put in place. It is there while `prepare` works, and after
it was stopped: then it tells fluxkit's own files from the user's, and what need not be done again.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fluxkit import __version__
from fluxkit.errors import UserError
from fluxkit.files import read_json, sha256_file, write_json

MANIFEST_FILE, JOURNAL_FILE, PHOTOS_FOLDER, ASIDE_FOLDER = "manifest.json", "journal.jsonl", "photos", "set-aside"
_FORMAT = 1
Crop = Literal["none", "face"]
Duplicates = Literal["leave-out", "keep"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(_Record):
    """What was asked for; `method` counts up when fluxkit itself makes the files in another way."""

    crop: Crop = "none"
    duplicates: Duplicates = "leave-out"
    face_model: str = ""
    method: int = 1

    def makes_the_same(self, other: "Recipe | None") -> bool:
        """Whether both make the same file from the same source."""
        return other is not None and self.model_copy(update={"duplicates": other.duplicates}) == other


class Stamp(_Record):
    """A file's contents, and what the file system said when they were read; size and time alone spare a second look."""

    sha256: str
    bytes: int
    mtime_ns: int


class CaptionCopy(_Record):
    """A caption that came along: its source, that source's hash, and the hash of what prepare wrote."""

    source: str
    source_sha256: str
    sha256: str


class PreparedPhoto(_Record):
    """A picture of the copy; `file` is relative to `photos/`, `source` to the originals' folder."""

    file: str
    output: Stamp
    size: tuple[int, int]
    source: str
    original: Stamp
    done: tuple[str, ...]
    notes: tuple[str, ...] = ()
    caption: CaptionCopy | None = None


class LeftOut(_Record):
    """A picture that is not in the copy, and why."""

    source: str
    code: Literal["duplicate", "unreadable", "not-a-photo"]
    why: str
    instead: str | None = None
    original: Stamp | None = None


class Manifest(_Record):
    """The whole `manifest.json`; `source` is the originals' folder, relative to the project where it lies inside."""

    format: Literal[1] = 1
    fluxkit: str = __version__
    source: str
    recipe: Recipe
    photos: tuple[PreparedPhoto, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Before:
    """What earlier runs left in `prepared/`.

    Args:
        manifest: of the last run that ended; None before the first.
        interrupted: whether a run was stopped since.
        photos: the newest record of each source; only with the recipe that the journal or manifest names.
        known: file → every hash that prepare itself gave it.
        recipe: the newest.
    """

    manifest: Manifest | None = None
    interrupted: bool = False
    photos: dict[str, PreparedPhoto] = field(default_factory=dict)
    known: dict[str, set[str]] = field(default_factory=dict)
    recipe: Recipe | None = None


def load_before(folder: Path) -> Before:
    """Read the manifest and the journal in `prepared/`.

    Raises:
        UserError: the manifest is damaged or of a later fluxkit.
    """
    manifest = load_manifest(folder)
    photos = {photo.source: photo for photo in manifest.photos} if manifest else {}
    known: dict[str, set[str]] = {}
    for photo in photos.values():
        _remember(known, photo)
    recipe = manifest.recipe if manifest else None
    interrupted = (folder / JOURNAL_FILE).exists()
    for record in _journal_records(folder / JOURNAL_FILE):
        if isinstance(record, Recipe):
            if not record.makes_the_same(recipe):
                photos = {}
            recipe = record
        else:
            photos[record.source] = record
            _remember(known, record)
    return Before(manifest, interrupted, photos, known, recipe)


def load_manifest(folder: Path) -> Manifest | None:
    """The manifest in `prepared/`; None when there is none."""
    path = folder / MANIFEST_FILE
    if not path.exists():
        return None
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > _FORMAT:
        raise UserError(f"{path} was written by a later fluxkit.", fix="Upgrade fluxkit, or delete the folder.")
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        raise UserError(
            f"{path} is damaged: {error.errors()[0]['msg']}.",
            fix=f"Keep what you edited in {folder} elsewhere, delete the folder, and run `fluxkit prepare` again.",
        ) from error


def save_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, then end the journal."""
    write_json(folder / MANIFEST_FILE, manifest.model_dump(mode="json"))
    (folder / JOURNAL_FILE).unlink(missing_ok=True)


def stamp(path: Path, sha256: str | None = None) -> Stamp:
    """A file's stamp; its contents are hashed unless the hash is known."""
    status = path.stat()
    return Stamp(sha256=sha256 or sha256_file(path), bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def stamp_of(data: bytes) -> Stamp:
    """The stamp of a file that is not written yet."""
    return Stamp(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), mtime_ns=0)


def unchanged(path: Path, before: Stamp) -> bool:
    """Whether a file holds what it held; hashed only where its size is the same and its time is another."""
    try:
        status = path.stat()
        if status.st_size != before.bytes:
            return False
        return status.st_mtime_ns == before.mtime_ns or sha256_file(path) == before.sha256
    except OSError:
        return False


def digest(folder: Path, manifest: Manifest) -> str:
    """A hash of the copy's pictures: what the trainer's caches of them depend on, hand-edited ones included."""
    parts = []
    for photo in manifest.photos:
        path = folder / PHOTOS_FOLDER / photo.file
        same = unchanged(path, photo.output)
        parts.append([photo.file, photo.output.sha256 if same else sha256_file(path) if path.is_file() else ""])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _remember(known: dict[str, set[str]], photo: PreparedPhoto) -> None:
    known.setdefault(photo.file, set()).add(photo.output.sha256)
    if photo.caption:
        known.setdefault(caption_name(photo.file), set()).add(photo.caption.sha256)


def caption_name(file: str) -> str:
    """The caption's name beside a picture's."""
    return file.rpartition(".")[0] + ".txt"


def _journal_records(path: Path) -> Iterator[PreparedPhoto | Recipe]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            data = json.loads(line)
            yield Recipe.model_validate(data) if "crop" in data else PreparedPhoto.model_validate(data)
        except (ValueError, TypeError):  # the line that was being written when the machine stopped
            continue
