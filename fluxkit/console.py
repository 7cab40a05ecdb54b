"""What fluxkit says, and where: messages for people on stderr or stdout, one JSON document for programs.

rich is imported only when something is printed, so that `fluxkit --help` stays quick.
"""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


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


class Mute(Output):
    """For a verb that another one runs inside: its results and warnings are not the outer one's."""

    def result(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def emit(self, document: Any) -> None:
        """Say nothing."""
