"""A Python that a release supports: found on this machine, or fetched by uv."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from fluxkit.errors import InstallError
from fluxkit.process import run
from fluxkit.trainer.releases import Release

_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])))"


def uv_bin() -> str:
    """Path of the uv that comes with fluxkit.

    Raises:
        InstallError: the uv package is there without its program.
    """
    import uv

    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        raise InstallError(
            f"uv is missing: {error}", fix="Run `python -m pip install --force-reinstall uv`."
        ) from error


def version_of(python: Path | str) -> str | None:
    """`3.12.4`, found by running it; None when it doesn't run (pyenv's shims for versions that aren't selected)."""
    done = run([python, "-c", _ASK], timeout=30)
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else None


def find_interpreter(release: Release, explicit: Path | None = None, *, fetch: bool = True) -> Path:
    """An interpreter that `release` supports.

    Looks at PATH, at uv's own, and at pyenv's; then lets uv fetch one (`fetch`).

    Args:
        release: what it is for.
        explicit: the user's choice; nothing else is looked at then.
        fetch: whether uv may download one.

    Raises:
        InstallError: the explicit one doesn't fit, or none was found and none could be fetched.
    """
    supported = SpecifierSet(release.python)
    if explicit is not None:
        version = version_of(explicit)
        if version is None or version not in supported:
            found = f"is Python {version}" if version else "does not run"
            raise InstallError(
                f"{explicit} {found}; SimpleTuner {release.version} needs Python {release.python}.",
                fix="Give --python another interpreter, or leave it out and fluxkit looks for one.",
            )
        return explicit
    candidates = [(version_of(path), path) for path in dict.fromkeys(_candidates(supported))]
    fitting = [(Version(version), path) for version, path in candidates if version and version in supported]
    if fitting:
        # The oldest minor first: it is what the release was measured with. Then the order they were found in.
        return min(fitting, key=lambda entry: entry[0].minor)[1]
    wanted = _minors(supported)[0]
    fetched = _fetch(wanted) if fetch else None
    if fetched is None:
        raise InstallError(
            f"SimpleTuner {release.version} needs Python {release.python}; none is on PATH, in uv or in pyenv.",
            fix=f"Run `uv python install {wanted}` with a network, or give fluxkit install --python PATH.",
        )
    return fetched


def _minors(supported: SpecifierSet) -> list[str]:
    return [f"3.{minor}" for minor in range(9, 20) if f"3.{minor}.99" in supported]


def _candidates(supported: SpecifierSet) -> Iterator[Path]:
    for minor in _minors(supported):
        on_path = shutil.which(f"python{minor}")
        if on_path:
            yield Path(on_path)
    done = run([uv_bin(), "python", "list", "--only-installed", "--output-format", "json"], timeout=60)
    if done.returncode == 0:
        for entry in json.loads(done.stdout or "[]"):
            if entry.get("path") and str(entry.get("version", "")) in supported:
                yield Path(entry["path"])
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for folder in sorted((pyenv / "versions").glob("3.*"), reverse=True):
        if folder.name in _contained(folder.name, supported):
            yield folder / "bin" / "python"


def _contained(name: str, supported: SpecifierSet) -> list[str]:
    # Folder names such as 3.12-dev or 3.13t are no versions: not worth a start.
    parts = name.split(".")
    return list(supported.filter([name])) if all(part.isdigit() for part in parts) else []


def _fetch(minor: str) -> Path | None:
    if run([uv_bin(), "python", "install", minor], timeout=600).returncode != 0:
        return None
    done = run([uv_bin(), "python", "find", "--managed-python", minor], timeout=60)
    python = Path(done.stdout.strip())
    return python if done.returncode == 0 and version_of(python) else None
