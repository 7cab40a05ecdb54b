"""From a requirement to every package it needs, with hashes, as the package index was on a day: `uv pip compile`."""

import os
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from packaging.specifiers import SpecifierSet

from fluxkit.errors import InstallError
from fluxkit.process import run
from fluxkit.trainer.interpreter import uv_bin

RESOLVE_SECONDS = 900
_NETWORK = (
    "dns error", "error sending request", "failed to fetch", "client error (connect)", "connection refused",
    "connection reset", "timed out", "network connectivity is disabled", "network was disabled", "tunnel error",
)  # fmt: skip
# The release has no file, or none that old; or two packages want what excludes each other.
_UNSATISFIABLE = ("no solution found", "was not found in the package registry", "no versions of", "no version of")


class UnreachableIndexError(InstallError):
    """The package index didn't answer: trying again later may help."""


class UnsatisfiableError(InstallError):
    """No set of packages satisfies the requirement: trying again won't help."""


def resolve_requirements(
    requirement: str,
    *,
    python: str,
    as_of: str,
    constraints: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> str:
    """Every package that `requirement` needs, pinned and hashed, in pip's format, without the index's address.

    The result is universal: one text serves every Linux and every Python that `python` allows.

    Args:
        requirement: e.g. `simpletuner[cpu]==4.8.0`; several lines are several requirements.
        python: the interpreters to serve, as a version specifier.
        as_of: the last day (ISO, UTC) whose uploads are seen.
        constraints: requirements that hold whatever is chosen.
        overrides: requirements that replace what packages ask for.

    Raises:
        UnreachableIndexError: the package index can't be reached.
        UnsatisfiableError: the release isn't there, or its requirements exclude each other.
        InstallError: anything else that uv says.
    """
    # uv reads a bare date in the machine's own time zone.
    oldest = next(f"3.{minor}" for minor in range(9, 30) if f"3.{minor}.99" in SpecifierSet(python))
    end = date.fromisoformat(as_of) + timedelta(days=1)
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [uv_bin(), "pip", "compile", _write(folder, "requirements.in", [requirement])]
        for flag, pins in (("--constraint", constraints), ("--override", overrides)):
            if pins:
                command += [flag, _write(folder, f"{flag.strip('-')}.txt", pins)]
        command += ["--universal", "--python-version", oldest, "--generate-hashes"]
        command += ["--exclude-newer", f"{end.isoformat()}T00:00:00Z"]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
        env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        done = run(command, cwd=Path(folder), env=env, timeout=RESOLVE_SECONDS)
    if done.returncode != 0:
        raise _error(requirement, as_of, done.stderr.strip() or done.stdout.strip())
    return done.stdout


def _write(folder: str, name: str, lines: Sequence[str]) -> Path:
    path = Path(folder, name)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _error(requirement: str, as_of: str, said: str) -> InstallError:
    words = said.lower()
    tail = "\n".join(f"  {line}" for line in said.splitlines()[-12:])
    # The network first: an index that doesn't answer has no versions either.
    if not said or any(word in words for word in _NETWORK):
        return UnreachableIndexError(
            f"The package index can't be reached to look up {requirement.splitlines()[0]}.\n{tail}".rstrip(),
            fix="Check the network and the proxy (HTTPS_PROXY, UV_DEFAULT_INDEX), then run the same command again.",
        )
    if any(word in words for word in _UNSATISFIABLE):
        return UnsatisfiableError(
            f"No set of packages of {as_of} or before satisfies {requirement.splitlines()[0]}:\n{tail}",
            fix="Pin a release that fluxkit ships a lock for: `fluxkit upgrade` names the newest.",
        )
    return InstallError(
        f"uv could not look up {requirement.splitlines()[0]}:\n{tail}", fix="Read what uv says above, then try again."
    )
