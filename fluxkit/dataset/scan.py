"""Which files the trainer would take from a folder, and which it would pass over."""

import os
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.model import Finding

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
# What cameras, phones and messengers leave in a folder. SimpleTuner 1.2 skips all of these; 4.8.0 takes everything that
# Pillow opens, and videos and sound too (`helpers/training/__init__.py`).
_PHOTO_SUFFIXES = (".heic", ".heif", ".avif", ".jxl", ".jfif", ".bmp", ".tif", ".tiff", ".gif")
_RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
_VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".flv", ".wmv", ".mpeg", ".mpg", ".3gp", ".ogv")
_SOUND_SUFFIXES = (".wav", ".wave", ".flac", ".mp3", ".m4a", ".mp4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".aiff")
_OTHER_MEDIA = frozenset((*_PHOTO_SUFFIXES, *_RAW_SUFFIXES, *_VIDEO_SUFFIXES, *_SOUND_SUFFIXES))
# Folders of macOS, ZFS and Jupyter that every release passes over (`helpers/data_backend/local.py`, 1.2.5 and 4.8.0).
_PASSED_OVER = frozenset(
    (".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems", ".zfs", ".ipynb_checkpoints"),
)


@dataclass(frozen=True)
class Scan:
    """The files of a dataset's folder, subfolders included.

    Args:
        images: files that are named as pictures, sorted.
        captions: `.txt` files, whatever their case, sorted.
        findings: about the folder and about files that are neither.
    """

    images: tuple[Path, ...]
    captions: tuple[Path, ...]
    findings: tuple[Finding, ...]


def without_suffix(path: Path) -> str:
    """The path without its last suffix. pathlib's own way refuses names such as `..png` from Python 3.13 on."""
    return str(path).removesuffix(path.suffix)


def scan(folder: Path) -> Scan:
    """List a dataset's files; a link to a folder is not followed, so no loop and no way out of the folder."""
    if not folder.exists():
        fix = "Make the folder and put the photos into it, or correct [dataset] path in fluxkit.toml."
        return _nothing(Finding("dataset.missing", "error", folder, "The folder with the photos doesn't exist.", fix))
    if not folder.is_dir():
        fix = "Name the folder that holds the photos in [dataset] path."
        return _nothing(Finding("dataset.not-a-folder", "error", folder, "This is a file, not a folder.", fix))
    openable = _openable()
    images: list[Path] = []
    captions: list[Path] = []
    findings: list[Finding] = []
    denied: list[OSError] = []
    for parent, folders, names in os.walk(folder, followlinks=False, onerror=denied.append):
        folders[:] = sorted(set(folders) - _PASSED_OVER)
        findings += [_linked_folder(Path(parent, name)) for name in folders if Path(parent, name).is_symlink()]
        for name in sorted(names):
            path = Path(parent, name)
            suffix = path.suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                images.append(path)
            elif suffix == ".txt":
                captions.append(path)
            elif suffix in _OTHER_MEDIA or suffix in openable:
                findings.append(_other_media(path))
    for error in denied:
        path = Path(error.filename or folder)
        message = f"The folder can't be read: {error.strerror}."
        findings.append(Finding("dataset.unreadable", "error", path, message, "Check the folder's permissions."))
    if not images and not denied:
        fix = "Put 20 photos (JPG, PNG or WebP) into it; 5 are the least."
        findings.append(Finding("dataset.empty", "error", folder, "There are no photos in the folder.", fix))
    return Scan(tuple(images), tuple(captions), tuple(findings))


def _openable() -> set[str]:
    """Every suffix that Pillow opens here, in lower case."""
    from PIL import Image

    return {suffix.lower() for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}


def _nothing(finding: Finding) -> Scan:
    return Scan((), (), (finding,))


def _linked_folder(path: Path) -> Finding:
    message = "A link to another folder: its photos are not checked here, but the trainer would take them."
    return Finding("dataset.linked-folder", "error", path, message, "Copy the photos here and delete the link.")


def _other_media(path: Path) -> Finding:
    message = (
        f"{path.suffix} is not a format that every SimpleTuner release reads; the file might silently be left out."
    )
    return Finding("image.format", "error", path, message, "Save it as JPG, PNG or WebP, or move it out of the folder.")
