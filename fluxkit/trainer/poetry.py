"""What a Poetry project needs, as plain requirements: for SimpleTuner's releases before it became a package.

Poetry's own constraints (`^2.7.1`, `~1.2`, `1.*`) are read by poetry-core. What the package index can't give is named
in `taken_from_git` and `other_indexes`, for the caller to replace and to report.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from fluxkit.errors import InstallError

_OWN_SOURCES = ("git", "directory", "file", "url")


@dataclass(frozen=True)
class GitRequirement:
    """A package that upstream takes from a repository.

    Args:
        name: what the index calls it, without extras.
        requirement: `name[extras]`, for a version to be put behind.
        marker: where it is needed, as in PEP 508; empty for everywhere.
        locked: the version that upstream's lock has of it (often `1.2.0.dev0`), or empty.
    """

    name: str
    requirement: str
    marker: str
    locked: str

    def pinned(self, version: str) -> str:
        """The requirement for one release from the package index."""
        return f"{self.requirement}=={version}" + (f" ; {self.marker}" if self.marker else "")


@dataclass(frozen=True)
class PoetryProject:
    """What a checkout's `pyproject.toml` and `poetry.lock` ask for.

    Args:
        python: the interpreters that it supports, as a version specifier.
        requirements: in PEP 508, all but those of `taken_from_git`.
        preferences: `name==version` of upstream's own lock, for what comes from the package index.
        taken_from_git: what upstream takes from a repository, a folder or an address.
        other_indexes: package → the other index that upstream takes it from.
    """

    python: str
    requirements: tuple[str, ...]
    preferences: tuple[str, ...] = ()
    taken_from_git: tuple[GitRequirement, ...] = ()
    other_indexes: tuple[tuple[str, str], ...] = ()


def read_poetry_project(folder: Path) -> PoetryProject:
    """Read the dependencies that `poetry install` would install; optional groups and the group `dev` are left out.

    Raises:
        InstallError: the files are not what Poetry understands.
    """
    from poetry.core.factory import Factory

    try:
        data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        package = Factory().create_poetry(folder).package
        locked = _locked(folder / "poetry.lock")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InstallError(
            f"{folder / 'pyproject.toml'} can't be read as a Poetry project: {error}",
            fix="Pin another release: `fluxkit upgrade` names the newest.",
        ) from error
    urls = {source["name"]: source["url"] for source in data["tool"]["poetry"].get("source", [])}
    plain, from_git, indexes = [], [], []
    for name in sorted(package.dependency_group_names()):
        if name == "dev":
            continue
        for dependency in package.dependency_group(name).dependencies:
            if dependency.is_optional():
                continue
            if dependency.source_type in _OWN_SOURCES:
                from_git.append(_from_git(dependency, locked))
                continue
            plain.append(_plain(dependency))
            if dependency.source_name:
                indexes.append((dependency.name, urls.get(dependency.source_name, dependency.source_name)))
    preferences = [f"{name}=={_public(version)}" for name, (version, own) in locked.items() if not own]
    return PoetryProject(
        python=str(package.python_constraint),
        requirements=tuple(plain),
        preferences=tuple(preferences),
        taken_from_git=tuple(from_git),
        other_indexes=tuple(indexes),
    )


def is_poetry_project(folder: Path) -> bool:
    """Whether `pyproject.toml` names its dependencies in Poetry's way alone."""
    try:
        data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    return "project" not in data and "dependencies" in data.get("tool", {}).get("poetry", {})


def _locked(path: Path) -> dict[str, tuple[str, bool]]:
    """Package → its version in upstream's lock and whether that came from a repository; none for split packages."""
    if not path.is_file():
        return {}
    found: dict[str, tuple[str, bool]] = {}
    twice = set()
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["package"]:
        name = canonicalize_name(entry["name"])
        twice |= {name} & set(found)
        found[name] = (entry["version"], entry.get("source", {}).get("type") in _OWN_SOURCES)
    return {name: entry for name, entry in found.items() if name not in twice}


def _from_git(dependency: Any, locked: dict[str, tuple[str, bool]]) -> GitRequirement:
    name = canonicalize_name(dependency.name)
    extras = f"[{','.join(sorted(dependency.extras))}]" if dependency.extras else ""
    marker = "" if dependency.marker.is_any() else str(dependency.marker)
    return GitRequirement(name, f"{name}{extras}", marker, locked.get(name, ("", True))[0])


def _plain(dependency: Any) -> str:
    text = str(dependency.to_pep_508())
    if "||" in text:  # PEP 508 has no "or": the newest of the spans is one that upstream allows
        text = str(dependency.with_constraint(dependency.constraint.ranges[-1]).to_pep_508())
    # A local part (`+cu124`) is another index's build; PEP 440 allows no such bound.
    return re.sub(r"\+[A-Za-z0-9.]+", "", text)


def _public(version: str) -> str:
    return version.split("+")[0]
