"""Captions on disk: written whole, older ones moved aside first, and a record of what was made by which model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import read_json, sha256_file, write_json, write_text


@dataclass
class CaptionStore:
    """The captions of a folder of pictures.

    Args:
        root: the project; the record names files relative to it.
        record_file: where the record lies. It may be lost: then `--overwrite` captions everything again.
        made: caption → hashes of picture and caption, and the model's key.
        reviewed: caption → hash of what was looked over.
    """

    root: Path
    record_file: Path
    made: dict[str, dict[str, str]] = field(default_factory=dict)
    reviewed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, root: Path, record_file: Path) -> "CaptionStore":
        """Read the record; a missing or damaged one is empty."""
        try:
            data: Any = read_json(record_file)
            return cls(root, record_file, dict(data["made"]), dict(data["reviewed"]))
        except (UserError, KeyError, TypeError, ValueError):
            return cls(root, record_file)

    def is_missing(self, picture: Path) -> bool:
        """Whether a picture has no caption, or one without a letter in it."""
        path = caption_path(picture)
        try:
            if not path.exists():
                return True
            return path.is_file() and path.stat().st_size < 4096 and not path.read_bytes().strip()
        except OSError:
            return False

    def is_from(self, picture: Path, model_key: str) -> bool:
        """Whether this model made the caption that is there now from the picture that is there now."""
        record = self.made.get(self._key(picture))
        path = caption_path(picture)
        return (
            record is not None
            and record.get("model") == model_key
            and path.is_file()
            and record.get("caption") == sha256_file(path)
            and record.get("picture") == sha256_file(picture)
        )

    def write(self, picture: Path, text: str, model_key: str) -> Path | None:
        """Write a caption and record it.

        Returns:
            Where the older caption is now; None when there was none.

        Raises:
            UserError: the folder can't be written; the older caption is as it was.
        """
        path = caption_path(picture)
        backup = None if self.is_missing(picture) else back_up(path)
        write_text(path, text + "\n")
        self.made[self._key(picture)] = {
            "model": model_key,
            "picture": sha256_file(picture),
            "caption": sha256_file(path),
        }
        self.save()
        return backup

    def needs_review(self, picture: Path) -> bool:
        """Whether the caption is another than the one that was looked over."""
        path = caption_path(picture)
        return path.is_file() and self.reviewed.get(self._key(picture)) != sha256_file(path)

    def mark_reviewed(self, picture: Path) -> None:
        """Remember that a person has seen the caption as it is now."""
        self.reviewed[self._key(picture)] = sha256_file(caption_path(picture))
        self.save()

    def save(self) -> None:
        """Write the record."""
        write_json(self.record_file, {"made": self.made, "reviewed": self.reviewed})

    def _key(self, picture: Path) -> str:
        path = caption_path(picture)
        inside = path.is_relative_to(self.root)
        return os.fsencode(path.relative_to(self.root) if inside else path).decode("utf-8", "backslashreplace")


def caption_path(picture: Path) -> Path:
    """The caption beside a picture, where the trainer looks for it."""
    return picture.with_suffix(".txt")


def back_up(path: Path) -> Path:
    """Keep a file under a name that nothing has yet: `photo.txt.bak`, `photo.txt.bak2` and so on.

    Raises:
        UserError: the folder can't be written.
    """
    number = 1
    while True:
        target = path.with_name(f"{path.name}.bak{number if number > 1 else ''}")
        try:
            with target.open("xb") as copy:
                copy.write(path.read_bytes())
            return target
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(
                f"The older caption can't be kept as {target}: {error.strerror}; nothing was changed.",
                fix="Free some disk space or check the folder's permissions, then run the same command again.",
            ) from error


def check_writable(pictures: Sequence[Path]) -> None:
    """Find out before minutes of loading whether captions can be written beside these pictures.

    Raises:
        UserError: naming the first folder that can't be written.
    """
    import tempfile

    for folder in dict.fromkeys(picture.parent for picture in pictures):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise UserError(
                f"Captions can't be written into {folder}: {error.strerror}.",
                fix="Check the folder's permissions; or run `fluxkit prepare`: captions then go into its copy.",
            ) from error
