"""How SimpleTuner's options moved over its releases, from `third_party/simpletuner/options.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from fluxkit.resources import resource


@dataclass(frozen=True)
class Renamed:
    """One option under all its names.

    Args:
        names: oldest first.
        since: the release that brought the newest name.
        inverted: whether every name after the first means the opposite of the first.
    """

    names: tuple[str, ...]
    since: str
    inverted: bool = False

    def flips(self, one: str, other: str) -> bool:
        """Whether a value changes sides between two of the names."""
        return self.inverted and (one == self.names[0]) != (other == self.names[0])


@dataclass(frozen=True)
class Revalued:
    """A value under two names: before `since`, `old` is what `new` is from there on.

    Args:
        options: where.
        old: the earlier name; may mean something else from `since` on.
        new: the later name.
        since: the release.
        reason: what changed, in a sentence for the user.
    """

    options: tuple[str, ...]
    old: str
    new: str
    since: str
    reason: str


@dataclass(frozen=True)
class Removed:
    """Options that are gone without a successor.

    Args:
        names: the options.
        since: the first release without them.
        neutral: the value that asked for nothing.
    """

    names: tuple[str, ...]
    since: str
    neutral: Any


@dataclass(frozen=True)
class History:
    """All that is known.

    Args:
        renamed: options under several names.
        revalued: values under several names.
        removed: options that are gone.
        harmless_defaults: option → why the move of its default changes nothing for a FLUX LoRA.
    """

    renamed: tuple[Renamed, ...]
    revalued: tuple[Revalued, ...]
    removed: tuple[Removed, ...]
    harmless_defaults: Mapping[str, str]

    def rename(self, name: str) -> Renamed | None:
        """The row of an option that was ever called `name`."""
        return next((row for row in self.renamed if name in row.names), None)

    def removal(self, name: str) -> Removed | None:
        """When the option `name` went away, if it did."""
        return next((row for row in self.removed if name in row.names), None)


@cache
def history() -> History:
    """The shipped history."""
    text = resource("third_party", "simpletuner", "options.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)

    def rows(kind: str) -> list[dict[str, Any]]:
        return [{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in data[kind]]

    return History(
        renamed=tuple(Renamed(**row) for row in rows("renamed")),
        revalued=tuple(Revalued(**row) for row in rows("revalued")),
        removed=tuple(Removed(**row) for row in rows("removed")),
        harmless_defaults=data["harmless_defaults"],
    )
