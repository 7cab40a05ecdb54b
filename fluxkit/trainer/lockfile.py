"""`fluxkit.lock`: the project's own record of what its pin resolved to, whole enough to rebuild the trainer from.

One table for each platform, so that a project shared between a laptop and a machine with a GPU keeps both.
"""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomlkit

from fluxkit.errors import UserError
from fluxkit.files import write_text
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.releases import find_release

FORMAT = 1
_HEAD = "# What [simpletuner] resolved to. Written by fluxkit install and fluxkit upgrade; keep it with the project.\n"
_FIX = "Delete it and run `fluxkit install`: it is written anew."
_PLATFORMS = ("cpu", "cuda")


@dataclass(frozen=True)
class LockedPlatform:
    """One platform's part of the file.

    Args:
        lock: what was resolved.
        python: version of the interpreter that the environment was last made with; empty before.
    """

    lock: Lock
    python: str = ""


def read_lock_file(path: Path) -> dict[str, LockedPlatform]:
    """Platform → what is locked for it; empty where there is no file, or one of fluxkit 0.1 that held no packages.

    Raises:
        UserError: it can't be read, its requirements are not those it was written with, or it is a newer fluxkit's.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}", fix=_FIX) from error
    if data.get("format", FORMAT) > FORMAT:
        raise UserError(f"{path} was written by a newer fluxkit.", fix="Update fluxkit.")
    try:
        return _parse(data["simpletuner"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a lock that fluxkit wrote: {error}", fix=_FIX) from error


def lock_file_text(platforms: dict[str, LockedPlatform]) -> str:
    """The file's text; every platform must be of the same release and source."""
    first = next(iter(platforms.values())).lock
    source = first.source
    head: dict[str, Any] = {"version": first.release.version, "source": source.kind}
    if source.kind == "git":
        head |= {"url": source.url, "commit": source.commit}
    if source.kind == "path":
        head |= {"path": str(source.path), "unpinned": True}
    lines = [_HEAD, f"format = {FORMAT}", "", "[simpletuner]", *_pairs(head)]
    for platform in _PLATFORMS:
        if platform in platforms:
            locked = platforms[platform]
            facts = {"origin": locked.lock.origin, "as_of": locked.lock.as_of, "python": locked.python}
            facts["requires_python"] = locked.lock.release.python
            lines += ["", f"[simpletuner.{platform}]", *_pairs(facts | {"sha256": locked.lock.digest})]
            # A literal string: requirements hold backslashes, and never three quotes.
            lines.append(f"requirements = '''\n{locked.lock.requirements}'''")
    return "\n".join(lines) + "\n"


def with_lock(platforms: dict[str, LockedPlatform], lock: Lock, python: str) -> dict[str, LockedPlatform]:
    """The platforms with `lock` put in; those of another release or source are dropped."""
    kept = {
        name: locked
        for name, locked in platforms.items()
        if (locked.lock.release.version, locked.lock.source) == (lock.release.version, lock.source)
    }
    return {**kept, lock.platform: LockedPlatform(lock, python)}


def write_lock_file(path: Path, platforms: dict[str, LockedPlatform]) -> None:
    """Write the file, unless it says the same already: unchanged content keeps its time stamp."""
    text = lock_file_text(platforms)
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def _parse(table: dict[str, Any]) -> dict[str, LockedPlatform]:
    known = find_release(table["version"])
    folder = table.get("path")
    source = Source(table["source"], table.get("url", ""), table.get("commit", ""), Path(folder) if folder else None)
    found = {}
    for platform in _PLATFORMS:
        entry = table.get(platform)
        if not isinstance(entry, dict):
            continue  # fluxkit 0.1 wrote the platform's name here, and no packages
        # A release without an entry of its own said which Python it wants when it was resolved.
        release = replace(known, python=entry["requires_python"])
        lock = Lock(release, platform, entry["requirements"], source, entry["as_of"], entry["origin"])
        if lock.digest != entry["sha256"]:
            raise ValueError(f"the requirements for {platform} were changed by hand")
        found[platform] = LockedPlatform(lock, str(entry["python"]))
    return found


def _pairs(values: dict[str, Any]) -> list[str]:
    return [f"{name} = {tomlkit.item(value).as_string()}" for name, value in values.items()]
