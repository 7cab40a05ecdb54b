"""The `.txt` beside each picture, read the way that the trainer reads it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from fluxkit.dataset.model import DatasetRules, Finding


def caption_findings(images: Iterable[Path], captions: Iterable[Path], rules: DatasetRules) -> Iterator[Finding]:
    """Missing, unreadable, empty, orphaned and ambiguous captions, and those without the trigger in front.

    Args:
        images: every picture file, readable or not: a broken picture's caption is no orphan.
        captions: every `.txt` file.
        rules: the project's.
    """
    owners: dict[Path, list[Path]] = defaultdict(list)
    for image in images:
        owners[image.with_suffix(".txt")].append(image)
    yield from _same_stem(owners.values())
    if rules.captions == "trigger":
        return
    present = set(captions)
    for caption, pictures in owners.items():
        if caption not in present:
            yield _missing(pictures[0], caption, present, rules.trigger)
    for caption in sorted(present):
        if caption in owners:
            yield from _text_findings(caption, rules.trigger)
        elif caption.with_suffix(".txt") not in owners:
            fix = "Delete it, or give it the name of its photo."
            yield Finding("caption.orphan", "warning", caption, "No photo has this caption's name.", fix)


def _same_stem(groups: Iterable[list[Path]]) -> Iterator[Finding]:
    for pictures in groups:
        if len(pictures) > 1:
            names = ", ".join(picture.name for picture in pictures)
            message = f"{names} differ only in their suffix, so they share one caption."
            yield Finding("image.same-stem", "error", pictures[0], message, "Rename or delete all but one.")


def _missing(picture: Path, caption: Path, present: set[Path], trigger: str) -> Finding:
    other_case = [path for path in present if path != caption and path.with_suffix(".txt") == caption]
    if other_case:
        message = f'The trainer looks for "{caption.name}", not "{other_case[0].name}".'
        return Finding("caption.missing", "error", picture, message, f'Rename it to "{caption.name}".')
    fix = f'Write "{trigger} …" into {caption.name}, or set captions = "trigger" under [dataset] to use none.'
    return Finding("caption.missing", "error", picture, "The photo has no caption.", fix)


def _text_findings(path: Path, trigger: str) -> Iterator[Finding]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"The caption is not UTF-8 text (byte {error.start})."
        yield Finding("caption.not-utf8", "error", path, message, "Save it again with the encoding UTF-8.")
        return
    except OSError as error:
        message = f"The caption can't be read: {error.strerror}."
        yield Finding("caption.unreadable", "error", path, message, "Check the file's permissions.")
        return
    if text.startswith("\ufeff"):
        message = "The caption begins with an invisible byte order mark, in front of the trigger."
        yield Finding("caption.bom", "error", path, message, 'Save it again as UTF-8 "without BOM".')
        text = text[1:]
    # The trainer splits at line feeds and drops empty lines; each of the rest is a caption of its own.
    lines = [line for line in text.split("\n") if line]
    if not any(line.strip() for line in lines):
        fix = f'Describe the photo: "{trigger} …".'
        yield Finding("caption.empty", "error", path, "The caption is empty.", fix)
        return
    if not all(line.strip() for line in lines):
        message = "A line holds nothing but spaces (or a Windows line end): to the trainer it is one more caption."
        yield Finding("caption.blank-line", "error", path, message, "Delete that line.")
        lines = [line for line in lines if line.strip()]
    if len(lines) > 1:
        message = f"{len(lines)} lines are {len(lines)} different captions to the trainer, one chosen each time."
        yield Finding("caption.several-lines", "warning", path, message, "Put it on one line, if it is one caption.")
    if any(not _begins_with(line, trigger) for line in lines):
        message = f'The caption doesn\'t begin with the trigger "{trigger}".'
        yield Finding("caption.no-trigger", "error", path, message, f'Put "{trigger} " in front of it.')


def _begins_with(line: str, trigger: str) -> bool:
    return re.match(rf"\s*{re.escape(trigger)}(?!\w)", line) is not None
