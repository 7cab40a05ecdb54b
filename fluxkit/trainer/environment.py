"""The trainer's own environment: built in place from a lock, checked, and marked as ready last of all.

It lies in the user's cache folder, named by the hash of its lock, so that projects share it and a new lock never
changes an old one. A folder without its marker is half-built (a kill, a full disk): it is removed and built again;
so is one whose files are not those that were installed.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fluxkit.errors import InstallError, InterruptedByUser
from fluxkit.files import waiting_lock, write_json, write_text
from fluxkit.trainer import uv
from fluxkit.trainer.cached import MARKER, OPTIONS, Environment, environment_for, is_ready, python_version
from fluxkit.trainer.health import check_health
from fluxkit.trainer.integrity import Damage, find_damage, record_packages
from fluxkit.trainer.interpreter import find_interpreter, version_of
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.sources.git import ensure_checkout

__all__ = ["MARKER", "OPTIONS", "Environment", "environment_for", "install", "is_ready", "python_version"]

_Report = Callable[[str], None]


def install(
    lock: Lock,
    *,
    python: Path | None = None,
    report: _Report = lambda _: None,
    on_progress: Callable[[uv.Downloads], None] = lambda _: None,
    deep: bool = False,
) -> Environment:
    """Build the environment of a lock, unless it is ready and whole.

    Args:
        lock: what to install.
        python: the interpreter to use; one is looked for by default.
        report: called with one line for each stage.
        on_progress: called while packages are downloaded.
        deep: hash every file of an environment that is ready, not only those that were written since.

    Raises:
        InstallError: no interpreter, no network, a wrong hash, no disk space, or a trainer that does not answer.
        InterruptedByUser: Ctrl-C; what is half-built is removed by the next install.
    """
    environment = environment_for(lock)
    try:
        if is_ready(environment) and not find_damage(environment.root, deep=deep):
            return environment
        environment.root.parent.mkdir(parents=True, exist_ok=True)
        if lock.source.kind == "git":
            ensure_checkout(lock, report)
        said = "Waiting for another fluxkit that installs the same trainer"
        with waiting_lock(environment.root, lambda: report(said)):
            # Another fluxkit may have built it while this one waited.
            damage = find_damage(environment.root, deep=deep) if is_ready(environment) else []
            if damage or not is_ready(environment):
                _clear(environment, damage, report)
                _build(environment, lock, python, report, on_progress)
    except OSError as error:
        raise _disk_error(environment, error) from error
    except KeyboardInterrupt as stop:
        raise InterruptedByUser(
            "The installation was stopped.", fix="`fluxkit install` starts it again; finished downloads are kept."
        ) from stop
    return environment


def _clear(environment: Environment, damage: list[Damage], report: _Report) -> None:
    if damage:
        report(f"The installed trainer is damaged: {say_damage(damage)}. Installing it again")
        # uv links files into the environment: one that was altered in place is altered in its cache too.
        shared = sorted({one.package for one in damage if one.shared})
        if shared:
            uv.forget_packages(shared)
    elif environment.root.exists():
        uv.end_orphans(environment.root)
        report("Removing a half-built environment")
    # First of all, or a kill in the middle would leave a marker on a part.
    (environment.root / MARKER).unlink(missing_ok=True)
    if environment.root.exists():
        shutil.rmtree(environment.root)


def say_damage(damage: list[Damage]) -> str:
    """The first three, and how many more."""
    more = f" and {len(damage) - 3} more" if len(damage) > 3 else ""
    return ", ".join(one.what for one in damage[:3]) + more


def _build(
    environment: Environment,
    lock: Lock,
    python: Path | None,
    report: _Report,
    on_progress: Callable[[uv.Downloads], None],
) -> None:
    release = environment.release
    interpreter = find_interpreter(release, python)
    version = version_of(interpreter) or ""
    report(f"Making an environment with Python {version} in {environment.root}")
    uv.make_venv(environment.root, interpreter)
    what = f"SimpleTuner {release.version}"
    report(f"Installing {what} ({lock.platform}) from its lock: up to 6 GB, a few minutes")
    listed = environment.root / "fluxkit-requirements.txt"
    write_text(listed, lock.requirements)
    uv.install_requirements(
        environment.root,
        listed,
        what=what,
        python=environment.python,
        index=lock.source.url if lock.source.kind == "pypi" else "",
        on_progress=on_progress,
    )
    report("Asking the trainer for its options (its imports take up to a minute)")
    check_health(environment, release, pinned=lock.source.kind != "path")
    facts = {"digest": lock.digest, "python": version, "uv": uv.uv_version(), **record_packages(environment.root)}
    built = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(environment.root / MARKER, {**facts, "release": release.version, "date": built})


def _disk_error(environment: Environment, error: OSError) -> InstallError:
    return InstallError(
        f"{environment.root} can't be written: {error.strerror or error}",
        fix="Free about 10 GB, or set FLUXKIT_CACHE to a folder on a bigger disk.",
    )
