"""A project as it would be after an upgrade, made beside it: to compare, to rehearse in, and to switch to."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxkit.project.edit import KeyPath, edited
from fluxkit.project.load import CONFIG_FILE, LOCK_FILE, PROMPTS_FILE, Project, load_project
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.lockfile import LockedPlatform, lock_file_text
from fluxkit.trainer.options import migrate

STAGING = "upgrade"


@dataclass(frozen=True)
class Staged:
    """The project as it would be, in a folder of its own.

    Args:
        folder: holds the new `fluxkit.toml` and `fluxkit.lock`, and can be rehearsed in.
        config: the new `fluxkit.toml`, with the project's own paths.
        lock: the new `fluxkit.lock`.
        migrated: option → (old, new) of values that had to change to keep their meaning.
    """

    folder: Path
    config: bytes
    lock: bytes
    migrated: Mapping[str, tuple[object, object]]


def stage(opened: Project, lock: Lock, python: str, old_version: str) -> Staged:
    """Write the project as it would be with `lock` into a folder below its cache.

    Args:
        opened: the project.
        lock: what it would be locked to.
        python: version of the environment's interpreter.
        old_version: the release that it is pinned to now.
    """
    folder = opened.cache_dir / STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = opened.config.train.options
    moved = migrate(options, old_version, lock.release.version)
    migrated = {name: (options[name], moved[name]) for name in options if moved[name] != options[name]}
    changes: dict[KeyPath, Any] = {("train", "options", name): now for name, (_, now) in migrated.items()}
    text = (opened.root / CONFIG_FILE).read_text(encoding="utf-8-sig")
    text = edited(text, {("simpletuner", "version"): lock.release.version, **changes})
    lock_text = lock_file_text({lock.platform: LockedPlatform(lock, python)})
    elsewhere = edited(text, {("dataset", "path"): str(opened.dataset_dir.resolve()), **_absolute_base(opened)})
    (folder / CONFIG_FILE).write_text(elsewhere, encoding="utf-8")
    (folder / LOCK_FILE).write_text(lock_text, encoding="utf-8")
    if (opened.root / PROMPTS_FILE).is_file():
        shutil.copyfile(opened.root / PROMPTS_FILE, folder / PROMPTS_FILE)
    return Staged(folder, text.encode(), lock_text.encode(), migrated)


def _absolute_base(opened: Project) -> dict[KeyPath, str]:
    local = (opened.root / Path(opened.config.model.base).expanduser()).resolve()
    return {("model", "base"): str(local)} if local.is_dir() else {}


def as_it_would_be(opened: Project, staged: Staged) -> Project:
    """The project in its own place, with the new settings and the new lock."""
    config = load_project(staged.folder).config
    own = config.model_copy(update={"dataset": opened.config.dataset, "model": opened.config.model})
    return replace(opened, config=own, lock_path=staged.folder / LOCK_FILE)
