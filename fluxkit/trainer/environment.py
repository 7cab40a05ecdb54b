"""The trainer's own environment: built in place from a lock, checked, and marked as ready last of all.

It lies in the user's cache folder, named by the hash of its lock, so that projects share it and a new lock never
changes an old one. A folder without its marker is half-built (a kill, a full disk): it is removed and built again.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from fluxkit.errors import InstallError
from fluxkit.files import cache_dir, write_json, write_text
from fluxkit.process import Completed, run
from fluxkit.trainer import probe
from fluxkit.trainer.interpreter import find_interpreter, uv_bin, version_of
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.releases import Release
from fluxkit.trainer.schema import has_schema, load_schema

MARKER = "fluxkit-ready.json"
OPTIONS = "fluxkit-options.json"  # what the installed release's own parser accepts
INSTALL_SECONDS = 3600
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
HEALTH_SECONDS = 600  # the imports take 40 s on two idle cores


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


def environment_for(lock: Lock) -> Environment:
    """The environment that belongs to a lock, whether or not it is there."""
    version = lock.release.version
    root = cache_dir().absolute() / "envs" / f"simpletuner-{version}-{lock.platform}-{lock.digest[:12]}"
    return Environment(root, root / "bin" / "python", lock.release, lock.platform, lock.digest, lock.source.path)


def is_ready(environment: Environment) -> bool:
    """Whether it was built to its end from this very lock, and its interpreter is still there."""
    return _marker(environment).get("digest") == environment.digest and environment.python.exists()


def python_version(environment: Environment) -> str:
    """Version of a ready environment's interpreter."""
    return str(_marker(environment).get("python", ""))


def install(
    lock: Lock,
    *,
    python: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Environment:
    """Build the environment of a lock, unless it is ready already.

    Args:
        lock: what to install.
        python: the interpreter to use; one is looked for by default.
        report: called with one line for each stage.

    Raises:
        InstallError: no interpreter, no network, a wrong hash, no disk space, or a trainer that does not answer.
    """
    environment = environment_for(lock)
    if is_ready(environment):
        return environment
    try:
        environment.root.parent.mkdir(parents=True, exist_ok=True)
        with _guard(environment, report):
            if not is_ready(environment):
                _build(environment, lock, python, report)
    except OSError as error:
        raise _disk_error(environment, error) from error
    return environment


@contextmanager
def _guard(environment: Environment, report: Callable[[str], None]) -> Iterator[None]:
    """One builder at a time; the system frees the lock of one that was killed."""
    guard = FileLock(f"{environment.root}.lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        report("Waiting for another fluxkit that installs the same trainer")
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


def _build(environment: Environment, lock: Lock, python: Path | None, report: Callable[[str], None]) -> None:
    if environment.root.exists():
        report("Removing a half-built environment")
        shutil.rmtree(environment.root)
    release = environment.release
    interpreter = find_interpreter(release, python)
    version = version_of(interpreter) or ""
    report(f"Making an environment with Python {version} in {environment.root}")
    _uv(["venv", "--quiet", "--no-project", "--python", interpreter, environment.root], environment)
    report(f"Installing SimpleTuner {release.version} ({lock.platform}) from its lock: up to 6 GB, a few minutes")
    requirements: list[str | Path] = [
        "pip",
        "install",
        "--quiet",
        "--no-progress",
        "--python",
        environment.python,
        "--require-hashes",
    ]
    listed = environment.root / "fluxkit-requirements.txt"
    write_text(listed, lock.requirements)
    _uv([*requirements, "-r", listed], environment)
    report("Asking the trainer for its options (its imports take up to a minute)")
    _check_health(environment, release, pinned=lock.source.kind != "path")
    uv = run([uv_bin(), "--version"], timeout=30).stdout.strip()
    built = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(environment.root / MARKER, {"digest": lock.digest, "python": version, "date": built, "uv": uv})


def _uv(arguments: list[str | Path], environment: Environment) -> None:
    done = run([uv_bin(), *arguments], env=_clean_env(), timeout=INSTALL_SECONDS)
    if done.returncode != 0:
        raise _uv_error(done, environment)


_KNOWN_FAILURES = (
    (
        ("hash mismatch",),
        "A downloaded package is not the one that was tested: its hash is wrong.",
        "Run `uv cache clean` and install again. If it stays, the package index or a proxy serves other files: ask it.",
    ),
    (
        ("no space left", "os error 28", "disk quota"),
        "The disk is full.",
        "Free about 10 GB, or set FLUXKIT_CACHE and UV_CACHE_DIR to folders on a bigger disk.",
    ),
    (
        ("dns error", "error sending request", "failed to fetch", "client error (connect)", "connection refused",
         "timed out", "network connectivity is disabled"),
        "The package index can't be reached.",
        "Check the network and the proxy (HTTPS_PROXY, UV_INDEX_URL), then run `fluxkit install` again; it resumes.",
    ),
)  # fmt: skip


def _uv_error(done: Completed, environment: Environment) -> InstallError:
    said = f"{done.stderr}\n{done.stdout}".strip()
    for words, message, fix in _KNOWN_FAILURES:
        if any(word in said.lower() for word in words):
            return InstallError(f"{message}\n{_tail(said)}", fix=fix)
    return InstallError(
        f"SimpleTuner {environment.release.version} could not be installed:\n{_tail(said)}",
        fix="Read what uv says above; `fluxkit install` starts again from a clean folder.",
    )


def _check_health(environment: Environment, release: Release, *, pinned: bool) -> None:
    """The trainer imports, its parser answers, and knows exactly the options of the shipped schema, if there is one."""
    # In its own folder: the trainer writes debug.log where it is started.
    env = _clean_env() | {"PATH": f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    done = run([environment.python, probe.__file__], cwd=environment.root, env=env, timeout=HEALTH_SECONDS)
    answer = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(probe.MARK)), None)
    if done.returncode != 0 or answer is None:
        raise InstallError(
            f"SimpleTuner {release.version} was installed but does not start:\n{_tail(done.stderr)}",
            fix="Run `fluxkit install` again; if it stays, report it with the lines above.",
        )
    options = json.loads(answer[len(probe.MARK) :])
    if pinned and has_schema(release.version):
        _check_options(set(options), release)
    write_json(environment.options_file, {"release": release.version, "options": options})


def _check_options(names: set[str], release: Release) -> None:
    differing = sorted(names ^ set(load_schema(release.version).options))
    if differing:
        raise InstallError(
            f"The installed SimpleTuner does not have the options of release {release.version}: "
            f"{', '.join(differing[:8])}.",
            fix="This fluxkit's lock and schema don't belong together: update fluxkit, then install again.",
        )


def _clean_env() -> dict[str, str]:
    """The user's, without what would mix the caller's packages in; UV_CACHE_DIR and index settings stay."""
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


def _marker(environment: Environment) -> dict[str, object]:
    try:
        data = json.loads((environment.root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _disk_error(environment: Environment, error: OSError) -> InstallError:
    return InstallError(
        f"{environment.root} can't be written: {error.strerror or error}",
        fix="Free about 10 GB, or set FLUXKIT_CACHE to a folder on a bigger disk.",
    )


def _tail(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-12:])
