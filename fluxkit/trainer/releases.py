"""The SimpleTuner releases that fluxkit knows, from `third_party/simpletuner/releases.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from fluxkit.errors import UserError
from fluxkit.resources import resource
from fluxkit.textmatch import did_you_mean


@dataclass(frozen=True)
class Release:
    """One SimpleTuner release.

    Args:
        version: as the package index writes it.
        era: which templates and launch rules hold.
        python: the interpreters it supports, as a version specifier.
        sources: where it can come from: `pypi`, `git`, `path`.
        launcher: `cli` (`<env>/bin/simpletuner train`) or `train.sh`.
        rehearsal: whether the tiny FLUX was trained with it.
        as_of: the day (ISO) whose packages its locks resolve to; empty when it brings its own lock.
        extras: platform (`cpu`, `cuda`) → the package's extra.
        locks: platform → file name under `third_party/simpletuner/locks`.
        constraints: what the resolution is held to.
        constraints_reason: why.
        defects: what is known to be wrong with it.
    """

    version: str
    era: str
    python: str
    sources: tuple[str, ...]
    launcher: Literal["cli", "train.sh"]
    rehearsal: bool
    as_of: str
    extras: Mapping[str, str]
    locks: Mapping[str, str]
    constraints: tuple[str, ...]
    constraints_reason: str
    defects: tuple[str, ...]


@cache
def releases() -> tuple[Release, ...]:
    """All known releases, newest first."""
    text = resource("third_party", "simpletuner", "releases.toml").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["release"]
    known = [Release(**{key: _frozen(value) for key, value in entry.items()}) for entry in entries]
    return tuple(sorted(known, key=lambda release: Version(release.version), reverse=True))


def find_release(version: str) -> Release:
    """The release called `version`; a `v` in front is fine.

    Raises:
        UserError: fluxkit doesn't know it.
    """
    wanted = version.strip().removeprefix("v")
    for release in releases():
        if wanted == release.version:
            return release
    names = [release.version for release in releases()]
    raise UserError(
        f"fluxkit doesn't know SimpleTuner {version!r}.{_nearest(wanted, names)}",
        fix=f"Set version in [simpletuner] of fluxkit.toml to one of: {', '.join(names)}.",
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _nearest(wanted: str, names: list[str]) -> str:
    """By spelling, or for a version number the newest known one that isn't newer."""
    try:
        older = [name for name in names if Version(name) <= Version(wanted)]
    except InvalidVersion:
        return did_you_mean(wanted, names)
    return f" The nearest it knows is {older[0] if older else names[-1]}."
