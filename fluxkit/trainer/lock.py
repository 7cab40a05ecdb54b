"""From the pin to the lock: which file of hashed requirements a project's trainer is installed from."""

from dataclasses import dataclass
from pathlib import Path

import tomlkit

from fluxkit.errors import UserError
from fluxkit.files import sha256_file, write_text
from fluxkit.hardware import gpus
from fluxkit.resources import resource
from fluxkit.trainer.releases import Release


@dataclass(frozen=True)
class Lock:
    """Every dependency of a release on one platform, with hashes.

    Args:
        release: the release.
        platform: `cpu` or `cuda`.
        file: requirements in pip's format.
        digest: SHA-256 of the file, hexadecimal.
    """

    release: Release
    platform: str
    file: Path
    digest: str


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


def shipped_lock(release: Release, platform: str) -> Lock:
    """The lock that fluxkit ships for a release.

    Raises:
        UserError: none is shipped for this release and platform.
    """
    name = release.locks.get(platform)
    if name is None:
        raise UserError(
            f"fluxkit can't install SimpleTuner {release.version} for {platform}: it ships no lock for it.",
            fix='Set version = "4.8.0" in [simpletuner] of fluxkit.toml.',
        )
    file = resource("third_party", "simpletuner", "locks", name)
    return Lock(release, platform, file, sha256_file(file))


def write_project_lock(path: Path, lock: Lock, python: str, *, source: str = "pypi") -> None:
    """Write `fluxkit.lock`: what the project's pin resolved to.

    Args:
        path: the file.
        lock: what was installed.
        python: version of the trainer's interpreter.
        source: where the release came from.
    """
    document = tomlkit.document()
    document.add(
        tomlkit.comment("What [simpletuner] resolved to. Written by fluxkit install; keep it with the project.")
    )
    table = tomlkit.table()
    table.update(
        {
            "version": lock.release.version,
            "source": source,
            "platform": lock.platform,
            "python": python,
            "sha256": lock.digest,
            "as_of": lock.release.as_of,
        }
    )
    document["simpletuner"] = table
    text = tomlkit.dumps(document)
    # Unchanged content keeps its time stamp: a second install touches nothing.
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
