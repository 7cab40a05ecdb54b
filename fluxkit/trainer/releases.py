"""The SimpleTuner releases that fluxkit knows, from `third_party/simpletuner/releases.toml`.

A release without an entry is served too: with the facts of its era and of the nearest entry, nothing claimed as proven.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from fluxkit.errors import UserError
from fluxkit.resources import resource
from fluxkit.textmatch import did_you_mean


@dataclass(frozen=True)
class Evidence:
    """What was run with a release and seen to work.

    Args:
        gpu_measured: the profiles' GPU figures are with it.
        rehearsed: the tiny FLUX was trained with it on a CPU, from its lock.
        sampled: images were made with that adapter.
        parsed: its own parser took what fluxkit renders, in its locked environment.
    """

    gpu_measured: bool = False
    rehearsed: bool = False
    sampled: bool = False
    parsed: bool = False


@dataclass(frozen=True)
class Defect:
    """Something that is wrong in a span of releases, and what fluxkit does about it.

    Args:
        id: names it.
        since: the first release seen to have it.
        until: the last one; empty when the newest known release has it.
        option: SimpleTuner's option that meets it; empty when it is none.
        value: the value of `option` that meets it; None for any; for `shim` it may be a list of them.
        action: `replace` (a default gets `replacement`; the user's own wish is refused), `refuse`, `shim` (load
            `replacement` into the trainer's process) or `known` (handled in code).
        replacement: for `replace` the value, for `shim` its name.
        when: `rehearsal-without-cuda`, `several-processes`, or empty for every run.
        reason: what happens, in a sentence for the user.
    """

    id: str
    since: str
    action: Literal["replace", "refuse", "shim", "known"]
    reason: str
    until: str = ""
    option: str = ""
    value: Any = None
    replacement: Any = None
    when: str = ""

    def concerns(self, version: str) -> bool:
        """Whether the release `version` has it."""
        asked = Version(version)
        return Version(self.since) <= asked and (not self.until or asked <= Version(self.until))


@dataclass(frozen=True)
class Release:
    """One SimpleTuner release.

    Args:
        version: as the package index writes it.
        date: the day (ISO) it came out; empty when unknown.
        era: the span of releases whose launcher it shares.
        python: the interpreters it supports, as a version specifier.
        sources: where it can come from: `pypi`, `git`, `path`.
        commit: what its tag points to; empty when unknown.
        launcher: `cli` (`<env>/bin/simpletuner train`) or `train.sh` (a checkout's script only).
        script: where train.sh lies in a checkout.
        config_paths: what it reads in its working folder, the first that is there.
        environment: variables that its launcher reads.
        output: what it writes below `output_dir`, by kind.
        extras: platform (`cpu`, `cuda`) → the package's extra; an empty one means none.
        locks: platform → file name under `third_party/simpletuner/locks`.
        as_of: the day (ISO) whose packages its locks resolve to; empty when there is none.
        constraints: what the resolution is held to, as requirements.
        overrides: what replaces the release's own requirements, as requirements.
        reasons: constraint or override → why.
        tested: what was run with it.
        defects: what is known to be wrong with it.
        listed: whether the table has it; if not, its facts are those of a neighbour.
        note: for a release that isn't listed, what to tell the user.
    """

    version: str
    date: str
    era: str
    python: str
    sources: tuple[str, ...]
    commit: str
    launcher: Literal["cli", "train.sh"]
    script: str
    config_paths: tuple[str, ...]
    environment: tuple[str, ...]
    output: Mapping[str, str]
    extras: Mapping[str, str]
    locks: Mapping[str, str]
    as_of: str
    constraints: tuple[str, ...]
    overrides: tuple[str, ...]
    reasons: Mapping[str, str]
    tested: Evidence
    defects: tuple[Defect, ...]
    listed: bool = True
    note: str = ""

    @property
    def tag(self) -> str:
        """Its tag in the repository."""
        return f"v{self.version}"

    @property
    def rehearsal(self) -> bool:
        """Whether the tiny FLUX was trained with it."""
        return self.tested.rehearsed

    def requirement(self, platform: str) -> str:
        """What pip calls it on a platform, e.g. `simpletuner[cpu]==4.8.0`."""
        extra = self.extras.get(platform, "")
        return f"simpletuner[{extra}]=={self.version}" if extra else f"simpletuner=={self.version}"


@cache
def releases() -> tuple[Release, ...]:
    """All listed releases, newest first."""
    known = [_release(entry) for entry in _table()["release"]]
    return tuple(sorted(known, key=lambda release: Version(release.version), reverse=True))


def default_release() -> Release:
    """The newest release that the profiles were measured with on a GPU: what `init` pins."""
    return next(release for release in releases() if release.tested.gpu_measured)


def find_release(version: str) -> Release:
    """The release called `version`; a `v` in front is fine.

    One that isn't listed gets the facts of its era and of the nearest older entry (or, at an era's start, the nearest
    newer one), no lock, and nothing claimed as tested.

    Raises:
        UserError: it is no version, or older than every era.
    """
    wanted = version.strip().removeprefix("v")
    names = [release.version for release in releases()]
    try:
        asked = Version(wanted)
    except InvalidVersion:
        raise UserError(
            f"{version!r} is no version of SimpleTuner.{did_you_mean(wanted, names)}",
            fix=f"Set version in [simpletuner] of fluxkit.toml to a number such as {default_release().version}.",
        ) from None
    listed = next((release for release in releases() if Version(release.version) == asked), None)
    return listed or _unlisted(asked)


def _unlisted(asked: Version) -> Release:
    newest = releases()[0]
    era = _era_of(asked)
    same = [release for release in releases() if release.era == era["name"]]
    older = [release for release in same if Version(release.version) < asked]
    near = older[0] if older else same[-1]
    if asked > Version(newest.version):
        note = (
            f"SimpleTuner {asked} is newer than this fluxkit, which knows releases up to {newest.version} and takes "
            "it for one of the same kind. Its options are asked for when it is installed."
        )
    else:
        note = (
            f"fluxkit has not tried SimpleTuner {asked}; it is treated like {near.version}. Its options are asked for "
            "when it is installed."
        )
    return replace(
        near,
        version=str(asked),
        date="",
        commit="",
        locks={},
        as_of="",
        constraints=_pins(era.get("constraint", ())),
        overrides=(),
        reasons=_reasons(era.get("constraint", ())),
        tested=Evidence(),
        defects=defects_of(str(asked)),
        listed=False,
        note=note,
    )


@cache
def _table() -> dict[str, Any]:
    text = resource("third_party", "simpletuner", "releases.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _era_of(version: Version) -> dict[str, Any]:
    eras: list[dict[str, Any]] = [era for era in _table()["era"] if Version(era["since"]) <= version]
    if not eras:
        oldest, usual = _table()["era"][0]["since"], default_release().version
        raise UserError(
            f"SimpleTuner {version} is too old for fluxkit.",
            fix=f"Set version in [simpletuner] of fluxkit.toml to {oldest} or newer, such as {usual}.",
        )
    return eras[-1]


def _release(entry: Mapping[str, Any]) -> Release:
    fields = {key: _frozen(value) for key, value in entry.items() if key not in ("constraint", "override", "tested")}
    era = _era_of(Version(entry["version"]))
    shared = {key: _frozen(value) for key, value in era.items() if key not in _ERA_ONLY}
    constraints, overrides = entry.get("constraint", ()), entry.get("override", ())
    return Release(
        **{**shared, **fields, "output": {**era["output"], **entry.get("output", {})}},
        era=era["name"],
        constraints=_pins(constraints),
        overrides=_pins(overrides),
        reasons=_reasons((*constraints, *overrides)),
        tested=Evidence(**entry.get("tested", {})),
        defects=defects_of(entry["version"]),
    )


def defects_of(version: str) -> tuple[Defect, ...]:
    """What is known to be wrong with the release `version`, listed or not."""
    known = [Defect(**{_FIELD.get(key, key): value for key, value in row.items()}) for row in _table()["defect"]]
    return tuple(defect for defect in known if defect.concerns(version))


def _pins(groups: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(pin for group in groups for pin in group["pins"])


def _reasons(groups: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {pin: group["reason"] for group in groups for pin in group["pins"]}


_ERA_ONLY = ("name", "since", "output", "constraint")
_FIELD = {"with": "replacement"}  # `with` is no name in Python


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
