"""What fluxkit says, and where: messages for people on stderr or stdout, one JSON document for programs.

rich is imported only when something is printed, so that `fluxkit --help` stays quick.
"""

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

PLAIN_SECONDS = 30.0  # between two lines where a bar can't be drawn


@dataclass(frozen=True)
class Output:
    """How to talk to whoever runs the command.

    Args:
        verbosity: -1 with `-q` (errors and results only), 0, 1 with `-v` (details too).
        as_json: stdout carries one JSON document and nothing else; messages go to stderr.
    """

    verbosity: int = 0
    as_json: bool = False

    def console(self) -> "Console":
        """A rich console on the stream for people; it honours NO_COLOR and a non-terminal by itself."""
        from rich.console import Console

        return Console(file=sys.stderr if self.as_json else sys.stdout, highlight=False, soft_wrap=True)

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """A line of progress or information; `-q` silences it. `text` is printed literally, never as markup."""
        if self.verbosity >= 0:
            self.console().print(text, style=style, markup=False)

    def detail(self, text: str) -> None:
        """A line that only `-v` shows."""
        if self.verbosity > 0:
            self.console().print(text, style="dim", markup=False)

    def warn(self, text: str) -> None:
        """A warning; `-q` does not silence it."""
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {text}", style="yellow", markup=False)

    def result(self, text: str) -> None:
        """What was asked for: printed even with `-q`, but not beside a JSON document."""
        if not self.as_json:
            self.console().print(text, markup=False)

    def table(self, table: "Table") -> None:
        """A table that was asked for; where stdout is no terminal, as wide as it needs to be."""
        from rich.console import Console

        Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table)

    def emit(self, document: Any) -> None:
        """The one JSON document of a `--json` command."""
        if self.as_json:
            text = json.dumps(document, indent=2, ensure_ascii=False, default=str)
            # In a string, what a terminal would obey is written as JSON's own escape: the same text to a program.
            sys.stdout.write("".join(_json_escape(letter) for letter in text) + "\n")

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None] | None]:
        """A bar on a terminal: yields what to call with how many are done, and of how many; None elsewhere."""
        with self.bar() as bar:
            yield bar.counter(label)

    @contextmanager
    def bar(self) -> Iterator["Bar"]:
        """A bar under the lines that are said meanwhile; where stdout is no terminal, a line now and then."""
        console = self.console()
        if self.verbosity < 0 or not console.is_terminal:
            yield Bar(self, None)
            return
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        words = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), words, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            yield Bar(self, progress)


class Bar:
    """What is going on now: a stage of unknown length, or so much of so much."""

    def __init__(self, out: Output, progress: "Progress | None") -> None:
        self._out = out
        self._progress = progress
        self._task = None if progress is None else progress.add_task("", total=None)
        self._said = time.monotonic()

    def stage(self, text: str) -> None:
        """A line that stays; the bar moves without a measure until `update`."""
        if self._progress is None or self._task is None:
            self._out.say(text)
        else:
            self._progress.console.print(text, markup=False)
            self._progress.reset(self._task, total=None, description="")

    def counter(self, label: str) -> Callable[[int, int], None] | None:
        """What to call with how many are done, and of how many; None where there is no bar."""
        if self._progress is None:
            return None
        return lambda done, total: self.update(f"{label} {done}/{total}", done, total)

    def update(self, text: str, done: float, total: float) -> None:
        """So much of so much; where there is no bar, a line every half minute."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=text, completed=done, total=total)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self._out.say(f"  {text}")


class Mute(Output):
    """For a verb that another one runs inside: its results and warnings are not the outer one's."""

    def result(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def emit(self, document: Any) -> None:
        """Say nothing."""


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would obey or hide written as an escape.

    Control characters, line ends, marks that change the direction of writing, and bytes of a file name that are no
    UTF-8. The joiner inside emoji stays.
    """
    return text if text.isprintable() else "".join(_escape(letter) for letter in text)


def _escape(letter: str) -> str:
    if not _obeyed(letter) or letter == "\u200d":
        return letter
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _json_escape(letter: str) -> str:
    if letter == "\n" or not _obeyed(letter):
        return letter
    code = ord(letter)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def _obeyed(letter: str) -> bool:
    return not letter.isprintable() and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
