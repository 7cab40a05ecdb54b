"""Where the trainers' environments lie in the user's cache folder, and what each says about itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxkit.files import cache_dir
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.releases import Release

MARKER = "fluxkit-ready.json"
OPTIONS = "fluxkit-options.json"  # what the installed release's own parser accepts


@dataclass(frozen=True)
class Environment:
    """Where a release is installed, or will be.

    Args:
        root: its folder.
        python: its interpreter (a link out of it; don't resolve).
        release: what is in it.
        platform: `cpu` or `cuda`.
        digest: SHA-256 of the lock it was built from.
        checkout: the release's own files, for the sources `git` and `path`; None where they are a package in it.
    """

    root: Path
    python: Path
    release: Release
    platform: str
    digest: str
    checkout: Path | None = None

    @property
    def options_file(self) -> Path:
        """The option schema that the health check asked the trainer for."""
        return self.root / OPTIONS

    def python_paths(self) -> dict[str, str]:
        """Variables that let its interpreter import from the checkout without writing `__pycache__` into it."""
        if self.checkout is None:
            return {}
        return {"PYTHONPATH": str(self.checkout), "PYTHONPYCACHEPREFIX": str(self.root / "pycache")}


def environments_dir() -> Path:
    """The folder of all environments."""
    return cache_dir().absolute() / "envs"


def environment_for(lock: Lock) -> Environment:
    """The environment that belongs to a lock, whether or not it is there."""
    root = environments_dir() / f"simpletuner-{lock.release.version}-{lock.platform}-{lock.digest[:12]}"
    return Environment(root, python_of(root), lock.release, lock.platform, lock.digest, lock.source.folder)


def python_of(root: Path) -> Path:
    """The interpreter of the environment in a folder."""
    return root / "bin" / "python"


def is_ready(environment: Environment) -> bool:
    """Whether it was built to its end from this very lock, and its interpreter and its checkout are still there."""
    checked_out = environment.checkout is None or environment.checkout.is_dir()
    built = read_marker(environment.root).get("digest") == environment.digest
    return built and environment.python.exists() and checked_out


def python_version(environment: Environment) -> str:
    """Version of a ready environment's interpreter."""
    return str(read_marker(environment.root).get("python", ""))


def read_marker(root: Path) -> Mapping[str, Any]:
    """What was written when an environment was finished; empty for a half-built one."""
    try:
        data = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
