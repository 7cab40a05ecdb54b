"""Each picture's caption in the user's own editor, the picture's path above it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluxkit.captioning.store import CaptionStore, caption_path
from fluxkit.captioning.text import one_line, with_trigger_first
from fluxkit.console import printable
from fluxkit.files import write_text

Edit = Callable[[str], str | None]
_HELP = "# What does this photo show? One line, beginning with {trigger}. Save and close; these two lines are left out."


@dataclass(frozen=True)
class Reviewed:
    """What became of one caption: `changed`, `unchanged`, or `emptied`: then the old text was kept."""

    picture: Path
    outcome: Literal["changed", "unchanged", "emptied"]


def review(pictures: Sequence[Path], store: CaptionStore, trigger: str, edit: Edit) -> Iterator[Reviewed]:
    """Open the caption of each picture, one after the other.

    Args:
        pictures: those whose captions to look over; each has one.
        store: remembers what was looked over.
        trigger: is put in front where it is missing.
        edit: shows a text in an editor; returns it as it was saved, or None when it was not.

    Raises:
        UserError: a caption can't be written; those before it are.
    """
    for number, picture in enumerate(pictures, start=1):
        path = caption_path(picture)
        before = path.read_bytes().decode("utf-8-sig", "replace")
        header = comment_lines(picture, trigger, number, len(pictures))
        edited = edit("\n".join([*header, before.strip("\n")]) + "\n")
        text = None if edited is None else reviewed_text(edited, header, before, trigger)
        outcome: Literal["changed", "unchanged", "emptied"] = "unchanged"
        if text == "":
            outcome = "emptied"
        elif text is not None and text != before:
            write_text(path, text)
            outcome = "changed"
        store.mark_reviewed(picture)
        yield Reviewed(picture, outcome)


def comment_lines(picture: Path, trigger: str, number: int, total: int) -> list[str]:
    """The lines above a caption: the picture's path, and what to do."""
    return [f"# {number}/{total}: {printable(str(picture))}", _HELP.format(trigger=trigger)]


def reviewed_text(edited: str, header: Sequence[str], before: str, trigger: str) -> str:
    """The caption file that an edited text becomes.

    Args:
        edited: as it was saved.
        header: lines to leave out; a caption may itself begin with `#`.
        before: the file as it was. Several lines in it are several captions and stay so; one line stays one.
        trigger: begins each line.

    Returns:
        Lines, each with its line end; empty when nothing is left.
    """
    lines = [line for line in edited.splitlines() if line.strip() not in header]
    lines = [line for line in map(one_line, lines) if line]
    if len([line for line in before.splitlines() if line.strip()]) <= 1:
        lines = [" ".join(lines)] if lines else []
    return "".join(with_trigger_first(line, trigger) + "\n" for line in lines)
