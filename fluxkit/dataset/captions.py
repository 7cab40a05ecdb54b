"""The `.txt` beside each picture, read the way that the trainer reads it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fluxkit.dataset.checks.measure import open_regular
from fluxkit.dataset.checks.tokens import Tokenizers, length_findings
from fluxkit.dataset.checks.wording import Wordings, trait_findings
from fluxkit.dataset.model import DatasetRules, Finding
from fluxkit.dataset.subjects import is_person

# No caption is this long; a log or a database that happens to be named .txt may be.
_LARGEST = 1 << 20


def caption_findings(
    folder: Path,
    images: Iterable[Path],
    captions: Iterable[Path],
    rules: DatasetRules,
    *,
    tokenizers: Tokenizers | None = None,
) -> Iterator[Finding]:
    """Missing, unreadable, empty, orphaned and ambiguous captions, and what is wrong with their words.

    Args:
        folder: the dataset's, named where a finding is about all captions.
        images: every picture file, readable or not: a broken picture's caption is no orphan.
        captions: every `.txt` file.
        rules: the project's.
        tokenizers: count the tokens; without them lengths are estimated.
    """
    # By name, not by path: a set of 20,000 paths would take ten times the memory.
    owners: dict[str, Path] = {}
    same: dict[str, list[Path]] = {}
    for image in images:
        name = _caption_name(image)
        first = owners.setdefault(name, image)
        if first is not image:
            same.setdefault(name, [first]).append(image)
    yield from _same_stem(same.values())
    if rules.captions == "trigger":
        return
    captions = sorted(captions)
    present = {str(caption) for caption in captions}
    for name, picture in owners.items():
        if name not in present:
            yield _missing(picture, Path(name), captions, rules.trigger)
    wordings = Wordings(rules.trigger)
    begins: Counter[bool] = Counter()
    for caption in captions:
        if str(caption) in owners:
            lines: list[str] = []
            yield from _text_findings(caption, lines)
            for line in lines:
                wordings.add(line)
                yield from length_findings(caption, line, tokenizers or Tokenizers())
            if lines:
                begins[any(_has_trigger(line, rules.trigger) for line in lines)] += 1
                yield from _trigger_findings(caption, lines, rules.trigger)
                if is_person(rules.subject):
                    yield from trait_findings(caption, "\n".join(lines))
        elif _caption_name(caption) not in owners:
            fix = "Delete it, or give it the name of its photo."
            yield Finding("caption.orphan", "warning", caption, "No photo has this caption's name.", fix)
    yield from wordings.findings(folder)
    if begins[True] and begins[False]:
        message = f"{begins[False]} of {begins.total()} captions lack the trigger: half-taught, it stands for nothing."
        fix = f'Begin all of them with "{rules.trigger}".'
        yield Finding("caption.trigger-some", "warning", folder, message, fix)


def _same_stem(groups: Iterable[list[Path]]) -> Iterator[Finding]:
    for pictures in groups:
        names = ", ".join(picture.name for picture in pictures)
        message = f"{names} differ only in their suffix, so they share one caption."
        yield Finding("image.same-stem", "error", pictures[0], message, "Rename or delete all but one.")


def _caption_name(path: Path) -> str:
    return str(path)[: len(str(path)) - len(path.suffix)] + ".txt"


def _missing(picture: Path, caption: Path, captions: Iterable[Path], trigger: str) -> Finding:
    other_case = [path for path in captions if path != caption and path.with_suffix(".txt") == caption]
    if other_case:
        message = f'The trainer looks for "{caption.name}", not "{other_case[0].name}".'
        return Finding("caption.missing", "error", picture, message, f'Rename it to "{caption.name}".')
    fix = f'Write "{trigger} …" into {caption.name}, or set captions = "trigger" under [dataset] to use none.'
    return Finding("caption.missing", "error", picture, "The photo has no caption.", fix)


def _text_findings(path: Path, good: list[str]) -> Iterator[Finding]:
    """What is wrong with a caption's file; its captions are added to `good`."""
    try:
        with open_regular(path) as handle:
            content = handle.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            message = "The file is larger than 1 MB: that is no caption."
            yield Finding("caption.unreadable", "error", path, message, "Replace it by a sentence or two.")
            return
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"The caption is not UTF-8 text (byte {error.start})."
        yield Finding("caption.not-utf8", "error", path, message, "Save it again with the encoding UTF-8.")
        return
    except (OSError, ValueError) as error:
        message = f"The caption can't be read: {getattr(error, 'strerror', None) or error}."
        yield Finding("caption.unreadable", "error", path, message, "Check the file's permissions.")
        return
    if text.startswith("\ufeff"):
        message = "The caption begins with an invisible byte order mark, in front of the trigger."
        yield Finding("caption.bom", "error", path, message, 'Save it again as UTF-8 "without BOM".')
        text = text[1:]
    # The trainer splits at line feeds and drops empty lines; each of the rest is a caption of its own.
    lines = [line for line in text.split("\n") if line]
    if not any(line.strip() for line in lines):
        fix = "Describe the photo, behind the trigger."
        yield Finding("caption.empty", "error", path, "The caption is empty.", fix)
        return
    if not all(line.strip() for line in lines):
        message = "A line holds nothing but spaces (or a Windows line end): to the trainer it is one more caption."
        yield Finding("caption.blank-line", "error", path, message, "Delete that line.")
        lines = [line for line in lines if line.strip()]
    if len(lines) > 1:
        message = f"{len(lines)} lines are {len(lines)} different captions to the trainer, one chosen each time."
        yield Finding("caption.several-lines", "warning", path, message, "Put it on one line, if it is one caption.")
    good += lines


def _trigger_findings(path: Path, lines: list[str], trigger: str) -> Iterator[Finding]:
    if not all(_has_trigger(line, trigger) for line in lines):
        said = any(re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", line, re.IGNORECASE) for line in lines)
        message = f'The caption doesn\'t hold the trigger "{trigger}"{" in exactly these letters" if said else ""}.'
        yield Finding("caption.no-trigger", "error", path, message, f'Put "{trigger} " in front of it.')
    elif not all(re.match(rf"\s*{re.escape(trigger)}(?!\w)", line) for line in lines):
        message = f'The trigger "{trigger}" is not the first word: it is learnt best there.'
        yield Finding("caption.trigger-late", "warning", path, message, f'Let it begin with "{trigger} ".')


def _has_trigger(line: str, trigger: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", line) is not None
