"""Requirements → every dependency with its hashes, by uv, as of a day."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from packaging.specifiers import SpecifierSet

from fluxkit.errors import InstallError
from fluxkit.process import run
from fluxkit.trainer.interpreter import uv_bin

SECONDS = 900
_NETWORK = ("dns error", "error sending request", "failed to fetch", "connection refused", "timed out", "connect)")


def resolve_requirements(
    requirement: str,
    *,
    python: str,
    as_of: str,
    constraints: Sequence[str] = (),
    overrides: Sequence[str] = (),
    preferences: Sequence[str] = (),
    later: Mapping[str, str] = MappingProxyType({}),
    index: str = "",
    env: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """One hashed requirements file for every Linux and Python that `python` allows.

    Args:
        requirement: what to install, e.g. `simpletuner[cpu]==4.8.0`; several lines are several requirements.
        python: the interpreters that must be served, as a version specifier.
        as_of: ISO day; nothing uploaded later is considered.
        constraints: what the resolution is held to.
        overrides: what replaces the packages' own requirements.
        preferences: versions (`torch==2.7.1`) that are taken wherever they fit.
        later: package → ISO day, for those that may be newer than `as_of`.
        index: address of the package index; the user's usual one when empty.
        env: added to the environment of what builds a package for its metadata.

    Raises:
        InstallError: no network, or the requirements can't be met together.
    """
    oldest = next(f"3.{minor}" for minor in range(9, 30) if f"3.{minor}.99" in SpecifierSet(python))
    with tempfile.TemporaryDirectory() as folder:
        files = {"in": [requirement], "constraints": constraints, "overrides": overrides}
        for name, lines in files.items():
            Path(folder, f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [uv_bin(), "pip", "compile", f"{folder}/in.txt", "-c", f"{folder}/constraints.txt"]
        command += ["--overrides", f"{folder}/overrides.txt", "--universal", "--python-version", oldest]
        command += ["--generate-hashes", "--exclude-newer", as_of, "--no-annotate", "--no-header"]
        command += ["--no-emit-index-url", "--quiet"]
        for package, day in later.items():
            command += ["--exclude-newer-package", f"{package}={day}"]
        if index:
            command += ["--default-index", index]
        # uv prefers the versions that it finds in the file that it is to write.
        answer = Path(folder, "answer.txt")
        answer.write_text("\n".join(preferences), encoding="utf-8")
        whole = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | dict(env)
        done = run([*command, "--output-file", str(answer)], env=whole, timeout=SECONDS)
        if done.returncode == 0:
            return answer.read_text(encoding="utf-8")
    said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-12:])
    if any(word in said.lower() for word in _NETWORK):
        raise InstallError(
            f"The package index can't be reached:\n{said}",
            fix="Check the network and the proxy (HTTPS_PROXY, UV_DEFAULT_INDEX), then run the same command again.",
        )
    raise InstallError(
        f"The packages that {requirement.splitlines()[0]} needs can't be had together as of {as_of}:\n{said}",
        fix="Pin a release that fluxkit ships a lock for: `fluxkit upgrade` names the newest.",
    )
