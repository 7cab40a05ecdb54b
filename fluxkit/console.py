"""What fluxkit says, and where: messages for people on stderr or stdout, one JSON document for programs.

rich is imported only when something is printed, so that `fluxkit --help` stays quick.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

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

    def emit(self, document: Any) -> None:
        """The one JSON document of a `--json` command."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")

    @contextmanager
    def bar(self) -> Iterator["Bar"]:
        """A bar under the lines that are said meanwhile; where stdout is no terminal, a line now and then."""
        console = self.console()
        if self.verbosity < 0 or not console.is_terminal:
            yield Bar(self, None)
            return
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
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
