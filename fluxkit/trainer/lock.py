"""What a pin resolved to: every dependency with its hashes, and where the release's own code comes from.

Two origins: a lock that fluxkit ships (tested), and one that was resolved for a project. Either is kept whole in the
project's `fluxkit.lock`, so that a newer fluxkit, which ships other locks, still rebuilds the same trainer.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fluxkit.errors import UserError
from fluxkit.hardware import gpus
from fluxkit.resources import resource
from fluxkit.trainer.releases import Release

SourceKind = Literal["pypi", "git", "path"]


@dataclass(frozen=True)
class Source:
    """Where a release's code comes from.

    Args:
        kind: `pypi` (a wheel among the requirements), `git` (a checkout of a commit), `path` (a folder, unpinned).
        url: of the repository that `commit` was fetched from.
        commit: the full hash that the release's tag pointed to.
        path: the folder, absolute.
    """

    kind: SourceKind = "pypi"
    url: str = ""
    commit: str = ""
    path: Path | None = None

    @property
    def identity(self) -> str:
        """What tells it from another source of the same release; empty for the package index: hashes do that."""
        return {"pypi": "", "git": self.commit, "path": str(self.path or "")}[self.kind]


@dataclass(frozen=True)
class Lock:
    """Every dependency of a release on one platform, with hashes.

    Args:
        release: the release.
        platform: `cpu` or `cuda`.
        requirements: in pip's format, with hashes; SimpleTuner itself is among them for source `pypi` alone.
        source: where SimpleTuner's code comes from.
        as_of: the day (ISO) whose packages it resolves to.
        origin: `shipped` (tested by fluxkit) or `resolved` (for a project).
    """

    release: Release
    platform: str
    requirements: str
    source: Source = Source()
    as_of: str = ""
    origin: Literal["shipped", "resolved"] = "shipped"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the requirements and the source's identity, hexadecimal."""
        return hashlib.sha256(f"{self.requirements}{self.source.identity}".encode()).hexdigest()


def choose_platform(setting: str) -> str:
    """`cpu` or `cuda`; `auto` looks for an NVIDIA GPU.

    Raises:
        UserError: `setting` is none of the three.
    """
    if setting == "auto":
        return "cuda" if gpus() else "cpu"
    if setting in ("cpu", "cuda"):
        return setting
    raise UserError(f"Platform {setting!r} is not known.", fix="Use auto, cpu or cuda in [simpletuner].")


def shipped_lock(release: Release, platform: str) -> Lock | None:
    """The lock that fluxkit ships for a release from the package index, or None."""
    name = release.locks.get(platform)
    if name is None:
        return None
    text = resource("third_party", "simpletuner", "locks", name).read_text(encoding="utf-8")
    return Lock(release, platform, text, as_of=release.as_of)
