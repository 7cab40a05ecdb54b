"""uv, run for the trainer's environment: its progress read, its failures put into words, its greed for disk stopped.

uv 0.13 writes, where stderr is no terminal, a line for each package of a MiB or more: `Downloading torch (506.1MiB)`
and later `Downloaded torch`. Nearly all are announced within two seconds of each other, the largest first, and
only what its cache lacks: what they add up to is what is still to come.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fluxkit.errors import InstallError, InterruptedByUser
from fluxkit.process import run, stream
from fluxkit.trainer.interpreter import uv_bin

# The lock of 4.8.0 for CUDA: 3,096 MiB announced, 6,306 MiB installed (an empty uv cache, 2026-11-24).
UNPACKED = 2.04
VENV_SECONDS = 300
_FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
_RESOLVED = re.compile(r"Resolved (\d+) packages? in")
_DOWNLOADING = re.compile(r"Downloading (\S+) \(([\d.]+)(B|KiB|MiB|GiB)\)")
_DOWNLOADED = re.compile(r"Downloaded (\S+)")
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Downloads:
    """How far uv is.

    Args:
        packages: how many the environment gets; 0 until uv knows.
        announced_bytes: compressed size of the large packages that uv's cache lacked, in bytes.
        finished_bytes: how much of that is here, in whole packages.
    """

    packages: int = 0
    announced_bytes: int = 0
    finished_bytes: int = 0


@dataclass
class DownloadReader:
    """uv's lines → `Downloads`."""

    packages: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)

    def read(self, line: str) -> Downloads | None:
        """What a line changed, or None."""
        if match := _RESOLVED.search(line):
            self.packages = int(match[1])
        elif match := _DOWNLOADING.search(line):
            self.sizes[match[1]] = int(float(match[2]) * _UNITS[match[3]])
        elif (match := _DOWNLOADED.search(line)) and match[1] in self.sizes:
            self.finished.add(match[1])
        else:
            return None
        return Downloads(self.packages, sum(self.sizes.values()), sum(self.sizes[name] for name in self.finished))


def clean_env() -> dict[str, str]:
    """The user's, without what would mix the caller's packages in; UV_CACHE_DIR and index settings stay."""
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


def uv_version() -> str:
    """What uv calls itself."""
    return run([uv_bin(), "--version"], timeout=30).stdout.strip()


def make_venv(root: Path, interpreter: Path) -> None:
    """Make an empty environment.

    Raises:
        InstallError: uv's reason.
    """
    command: list[str | Path] = [uv_bin(), "venv", "--quiet", "--no-project", "--python", interpreter, root]
    done = run(command, env=clean_env(), timeout=VENV_SECONDS)
    if done.returncode != 0:
        raise _failure(f"{done.stderr}\n{done.stdout}", "The environment")


def install_requirements(
    root: Path,
    listed: Path,
    *,
    what: str,
    python: Path,
    index: str = "",
    on_progress: Callable[[Downloads], None] = lambda _: None,
) -> None:
    """Install a hashed requirements file into an environment; uv's words are kept in `fluxkit-install.log`.

    Args:
        root: the environment's folder.
        listed: the file.
        what: what is installed, for messages.
        python: the environment's interpreter.
        index: address of the package index; the user's own by default.
        on_progress: called whenever uv is a step further.

    Raises:
        InstallError: no network, a wrong hash, a full disk (seen before most is downloaded), or uv's own reason.
        InterruptedByUser: Ctrl-C.
    """
    # Not --no-progress: it silences the lines that are read here.
    command: list[str | Path] = [uv_bin(), "pip", "install", "--python", python, "--require-hashes", "-r", listed]
    command += ["--default-index", index] if index else []
    reader, said = DownloadReader(), list[str]()
    free = {folder: shutil.disk_usage(folder).free for folder in _filesystems(root)}

    def on_line(line: str) -> None:
        said.append(line)
        downloads = reader.read(line)
        if downloads:
            _check_space(free, downloads.announced_bytes)
            on_progress(downloads)

    try:
        code = stream(
            command, cwd=root, env=clean_env() | {"NO_COLOR": "1"}, on_line=on_line, log=root / "fluxkit-install.log"
        )
    except InterruptedByUser as stop:
        raise InterruptedByUser(
            "The installation was stopped.", fix="`fluxkit install` starts it again; finished downloads are kept."
        ) from stop
    if code != 0:
        raise _failure("\n".join(said), what)


def end_orphans(root: Path) -> None:
    """End a uv that still installs into a folder after its fluxkit was killed; the caller holds the folder's lock."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words and Path(words[0]).name == "uv" and any(word.startswith(f"{root}{os.sep}") for word in words):
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(10)


def forget_packages(names: list[str]) -> None:
    """Remove packages from uv's cache, so that they are downloaded anew."""
    run([uv_bin(), "cache", "clean", "--quiet", *names], env=clean_env(), timeout=VENV_SECONDS)


def uv_cache_dir() -> Path:
    """The folder of uv's cache, which may not be there yet."""
    return Path(run([uv_bin(), "cache", "dir", "--quiet"], env=clean_env(), timeout=30).stdout.strip() or "/")


def existing(path: Path) -> Path:
    """The nearest folder upwards that is there: its filesystem is the one that will be written to."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def tail(text: str) -> str:
    """The last lines of what a program said, indented."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-12:])


def _filesystems(root: Path) -> list[Path]:
    """The environment's folder, and uv's cache where that is on another filesystem: each then holds a whole copy."""
    cache = existing(uv_cache_dir())
    return [root] if cache.stat().st_dev == root.stat().st_dev else [root, cache]


def _check_space(free: dict[Path, int], announced: int) -> None:
    needed = int(announced * UNPACKED)
    for folder, there in free.items():
        if needed > there:
            raise InstallError(
                f"There is not enough disk space: {needed / 1e9:.1f} GB are still to be installed, "
                f"and {there / 1e9:.1f} GB are free at {folder}.",
                fix=f"Free {max(0.1, (needed - there) / 1e9):.1f} GB and a little more, or set FLUXKIT_CACHE and "
                "UV_CACHE_DIR to folders on a bigger disk.",
            )


_KNOWN_FAILURES = (
    (
        ("hash mismatch",),
        "A downloaded package is not the one that was tested: its hash is wrong.",
        "Run `uv cache clean` and install again. If it stays, the package index or a proxy serves other files: ask it.",
    ),
    (
        ("no space left", "os error 28", "os error 27", "file too large", "disk quota"),
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


def _failure(said: str, what: str) -> InstallError:
    for words, message, fix in _KNOWN_FAILURES:
        if any(word in said.lower() for word in words):
            return InstallError(f"{message}\n{tail(said)}", fix=fix)
    return InstallError(
        f"{what} could not be installed:\n{tail(said)}",
        fix="Read what uv says above; `fluxkit install` starts again from a clean folder.",
    )
