"""A bare copy of SimpleTuner's repository in the user's cache, with the tags that were asked for.

Git runs without the user's settings: no hooks, filters, credential prompts or `GIT_*` variables of theirs, so that the
same tag gives the same files everywhere. A kill leaves at most a stale lock file, which the next call removes.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fluxkit.errors import InstallError
from fluxkit.files import cache_dir
from fluxkit.trainer.lockfile import without_password

SECONDS = 1800  # the repository's whole history is 50 MB
_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_EXEC_PATH")
_SET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "GIT_PYTHON_REFRESH": "quiet",
}
_SETTINGS = (
    f"core.hooksPath={os.devnull}", f"core.attributesFile={os.devnull}", f"core.excludesFile={os.devnull}",
    "core.autocrlf=false", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "credential.helper=",
    "safe.bareRepository=all",
)  # fmt: skip
_DAY = ("show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%d")  # TZ is UTC
_KNOWN_FAILURES = (
    (
        ("no space left", "disk quota"),
        "The disk is full.",
        "Free some space, or set FLUXKIT_CACHE to a folder on a bigger disk, then install again.",
    ),
    (
        ("could not read username", "could not read password", "terminal prompts disabled", "authentication failed",
         "permission denied (publickey", "host key verification failed"),
        "It asks for a user name or a password.",
        "fluxkit never asks for one: set mirror in [simpletuner] to an address that needs none, or one that your ssh "
        "agent opens.",
    ),
    (
        ("couldn't find remote ref", "not our ref", "unadvertised object"),
        "It does not have what is asked for.",
        "Correct mirror in [simpletuner], or pin another version.",
    ),
    (
        ("dubious ownership",),
        "It belongs to another user, and git does not read such folders.",
        "Copy it (`cp -r`) and set mirror in [simpletuner] to the copy.",
    ),
    (
        ("could not resolve host", "failed to connect", "couldn't connect", "connection refused", "connection reset",
         "timed out", "network is unreachable", "unable to look up", "could not resolve hostname", "proxy"),
        "It can't be reached.",
        "Check the network and the proxy (HTTPS_PROXY), or set mirror in [simpletuner] to a clone that can be reached.",
    ),
    (
        ("does not appear to be a git repository", "repository not found", "not found", "does not exist",
         "no such file", "not a git repository"),
        "There is no repository.",
        "Correct mirror in [simpletuner] of fluxkit.toml; without it, the public repository is used.",
    ),
)  # fmt: skip


class RepositoryError(InstallError):
    """The repository can't be read; what lies in the cache may still serve.

    Args:
        message: what is wrong.
        fix: what to do next.
        understood: whether the reason is known; an unknown one may be a damaged copy.
    """

    def __init__(self, message: str, *, fix: str = "", understood: bool = True) -> None:
        super().__init__(message, fix=fix)
        self.understood = understood


@dataclass(frozen=True)
class Repository:
    """A repository at `url`, and its bare copy in the cache."""

    url: str

    @property
    def folder(self) -> Path:
        """The bare copy."""
        return cache_dir().absolute() / "git" / f"{sha256(self.url.encode()).hexdigest()[:16]}.git"

    def upstream_tags(self) -> dict[str, str]:
        """Tag → the commit that it points to now, asked of `url`.

        Raises:
            RepositoryError: it can't be read.
        """
        listed = self._git("ls-remote", "--tags", "--", self.url, bare=False)
        tags = {}
        # An annotated tag has a second line, `…^{}`, with the commit; it comes after the tag's own.
        for line in listed.splitlines():
            commit, _, name = line.partition("\t")
            tags[name.removeprefix("refs/tags/").removesuffix("^{}")] = commit
        return tags

    def cached_tag(self, tag: str) -> str | None:
        """The commit that the tag pointed to when it was fetched; None when it never was."""
        return self._commit(f"refs/tags/{tag}")

    def has(self, commit: str) -> bool:
        """Whether the commit is in the bare copy."""
        return self._commit(commit) is not None

    def fetch(self, what: str, target: str) -> None:
        """Fetch one tag or commit without its history, and keep it under the reference `target`.

        Raises:
            RepositoryError: `url` can't be read or has no `what`.
        """
        with self.locked():
            self._prepare()
            try:
                self._fetch("--depth", "1", what=what, target=target)
            except RepositoryError as error:
                if error.understood:
                    raise
                # A plain web server can't shorten history, and a crash may have damaged the copy: all of it, anew.
                shutil.rmtree(self.folder)
                self._prepare()
                self._fetch(what=what, target=target)

    def day_of(self, commit: str) -> str:
        """The commit's day (ISO, UTC)."""
        return self._git(*_DAY, commit)

    def write_files(self, commit: str, folder: Path) -> None:
        """Write the commit's files into an empty folder, exactly as they are in the repository."""
        with self._index(commit, folder) as work:
            self._git(*work, "checkout-index", "--all", "--force", index=folder)

    def differs(self, commit: str, folder: Path) -> bool:
        """Whether the folder's files are not the commit's: changed, missing or added."""
        with self._index(commit, folder) as work:
            with contextlib.suppress(RepositoryError):  # it fails when files differ, and fills the index's stamps
                self._git(*work, "update-index", "--refresh", "-q", index=folder)
            changed = self._git(*work, "diff-files", "--name-only", index=folder)
            return bool(changed or self._git(*work, "ls-files", "--others", index=folder))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One fluxkit at a time."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(self.folder, lambda _: None):
            yield

    @contextmanager
    def _index(self, commit: str, folder: Path) -> Iterator[tuple[str, ...]]:
        index = _index_of(folder)
        Path(f"{index}.lock").unlink(missing_ok=True)  # of a git that was killed
        try:
            self._git("read-tree", commit, index=folder)
            yield (f"--work-tree={folder}",)
        finally:
            index.unlink(missing_ok=True)

    def _prepare(self) -> None:
        if not (self.folder / "HEAD").is_file():
            shutil.rmtree(self.folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.folder.parent, ignore_cleanup_errors=True) as temporary:
                made = Path(temporary, "bare.git")
                self._git("init", "--quiet", "--bare", "--template=", "--", str(made), bare=False)
                made.rename(self.folder)
        # Nobody else is here: what is locked was left by a killed git.
        for stale in [*self.folder.glob("*.lock"), *self.folder.glob("refs/**/*.lock")]:
            stale.unlink(missing_ok=True)
        for stale in self.folder.glob("objects/pack/tmp_*"):
            stale.unlink(missing_ok=True)

    def _fetch(self, *options: str, what: str, target: str) -> None:
        self._git("fetch", "--quiet", "--no-tags", "--force", *options, "--", self.url, f"+{what}:{target}")

    def _commit(self, name: str) -> str | None:
        if not self.folder.is_dir():
            return None
        with contextlib.suppress(RepositoryError):
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return None

    def _git(self, *arguments: str, bare: bool = True, index: Path | None = None) -> str:
        home = self.folder.parent
        home.mkdir(parents=True, exist_ok=True)
        with clean_git_environment():
            git = _gitpython()
            settings = [part for setting in _SETTINGS for part in ("-c", setting)]
            where = [f"--git-dir={self.folder}"] if bare else []
            # A home folder may be a repository of its own: its settings are not looked for.
            extra = {"GIT_CEILING_DIRECTORIES": str(home.parent)}
            if index:
                extra["GIT_INDEX_FILE"] = str(_index_of(index))
            try:
                command = ["git", *settings, *where, *arguments]
                return str(git.Git(home).execute(command, env=extra, kill_after_timeout=SECONDS))
            except git.GitCommandNotFound as error:
                raise _no_git() from error
            except git.GitCommandError as error:
                raise self._error(str(error.stderr)) from error

    def _error(self, said: str) -> RepositoryError:
        lines = [line for line in without_password(said).strip().strip("'").splitlines() if line.strip()]
        tail = "\n".join(f"  {line.strip()}" for line in lines[-6:])
        where = without_password(self.url)
        for words, message, fix in _KNOWN_FAILURES:
            if any(word in said.lower() for word in words):
                return RepositoryError(f"SimpleTuner's repository {where}: {message}\n{tail}", fix=fix)
        message = f"SimpleTuner's repository {where} can't be read:\n{tail}"
        return RepositoryError(message, fix="Read what git says above, then install again.", understood=False)


def tags_at_head(folder: Path) -> tuple[list[str], str]:
    """The tags on a work tree's current commit, and that commit's day; nothing for a folder that git doesn't know.

    Only the folder's own repository counts, not one that it lies in.
    """
    if not (folder / ".git").exists():
        return [], ""
    with contextlib.suppress(InstallError):
        repository = Repository(str(folder))
        where = f"--git-dir={folder / '.git'}"
        tags = repository._git(where, "tag", "--points-at", "HEAD", bare=False).split()
        return tags, repository._git(where, *_DAY, "HEAD", bare=False)
    return [], ""


@contextmanager
def waiting_lock(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold `path`'s lock file; say so when another fluxkit has it. The system frees that of one that was killed."""
    guard = FileLock(f"{path}.lock")
    try:
        guard.acquire(timeout=0)
    except Timeout:
        report("Waiting for another fluxkit that fetches SimpleTuner")
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


@contextmanager
def clean_git_environment() -> Iterator[None]:
    """Take the user's `GIT_*` variables out of this process's environment for a while, and put fluxkit's in.

    GitPython passes the whole environment on and can only add to it; pre-commit's `no_git_env` tells why that matters:
    inside a hook, `GIT_DIR` and `GIT_INDEX_FILE` point to the user's own repository.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("GIT_") or name == "TZ"}
    for name in before:
        if name not in _KEPT:
            del os.environ[name]
    os.environ.update(_SET)
    os.environ["TZ"] = "UTC"
    if "GIT_SSH" not in before:
        os.environ.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("GIT_") or name == "TZ"]:
            del os.environ[name]
        os.environ.update(before)


def _index_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.index")


def _gitpython() -> Any:
    try:
        import git
    except ImportError as error:  # it looks for the program as it is imported
        raise _no_git() from error
    return git


def _no_git() -> InstallError:
    return InstallError(
        'git is not installed, and source = "git" needs it.',
        fix='Install git (on Debian and Ubuntu: `sudo apt install git`), or set source = "pypi" in [simpletuner].',
    )
