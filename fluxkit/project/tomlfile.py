"""TOML files that we own, read so that every problem names its line."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class TomlFile:
    """A parsed TOML file.

    Args:
        path: where it lies.
        data: its contents.
        lines: line number (from 1) of each table and key, by its path.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]

    def line_of(self, key: KeyPath) -> int | None:
        """The line of `key`, else of the nearest table around it, else None."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None


def read_toml(path: Path, *, missing_fix: str = "") -> TomlFile:
    """Read a TOML file.

    Raises:
        UserError: it is missing, unreadable, not UTF-8, or no TOML (with line and column).
    """
    try:
        # utf-8-sig: Windows editors put a byte order mark in front, which TOML forbids.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing.", fix=missing_fix) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).", fix="Save it as UTF-8.") from error
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{path} is not valid TOML: {error}{_quoted_line(text, str(error))}"
        raise UserError(message, fix='Texts need quotes (name = "text"), one setting a line.') from error
    return TomlFile(path, data, _line_numbers(text))


def _quoted_line(text: str, error: str) -> str:
    """The line that the parser's message names, so that its key is seen at once."""
    place = re.search(r"at line (\d+)", error)
    lines = text.splitlines()
    number = int(place[1]) if place else 0
    return f":\n  {lines[number - 1].strip()}" if 0 < number <= len(lines) else ""


def _line_numbers(text: str) -> dict[KeyPath, int]:
    """Line of each table header and key of a valid TOML text; the standard parser keeps none."""
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    pending = ""  # an entry that goes on over several lines: a multi-line string or array
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not pending:
            start = number
        pending = f"{pending}\n{line}" if pending else line
        try:
            parsed = tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        entry, pending = pending, ""
        found = _only_path(parsed)
        if entry.lstrip().startswith("["):
            table = found
            lines.setdefault(table, start)
        elif found:
            for length in range(1, len(found) + 1):
                lines.setdefault(table + found[:length], start)
    return lines


def _only_path(parsed: dict[str, Any]) -> KeyPath:
    """The dotted path that a single TOML entry spells: `a.b = 1` and `[a.b]` are both ("a", "b")."""
    path: list[str] = []
    node: Any = parsed
    while isinstance(node, dict) and len(node) == 1:
        key, node = next(iter(node.items()))
        path.append(key)
    return tuple(path)
