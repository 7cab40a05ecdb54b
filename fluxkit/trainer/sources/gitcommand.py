"""Git, run without the user's settings: no hooks, filters, credential prompts or `GIT_*` variables of theirs.

So the same commit gives the same files everywhere, and nothing waits for a password that nobody types.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fluxkit.errors import InstallError
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


def git(arguments: list[str], *, home: Path, url: str, index: Path | None = None) -> str:
    """Run git and return what it printed, without the last line's end.

    Args:
        arguments: after `git`.
        home: the working folder.
        url: the repository that it is about, for the error.
        index: file to use instead of the repository's index.

    Raises:
        RepositoryError: git failed.
        InstallError: there is no git.
    """
    home.mkdir(parents=True, exist_ok=True)
    # A home folder may be a repository of its own: its settings are not looked for.
    env = {"GIT_CEILING_DIRECTORIES": str(home.parent)} | ({"GIT_INDEX_FILE": str(index)} if index else {})
    with _clean_environment():
        python = _gitpython()
        command = ["git", *(part for setting in _SETTINGS for part in ("-c", setting)), *arguments]
        try:
            return str(python.Git(home).execute(command, env=env, kill_after_timeout=SECONDS))
        except python.GitCommandNotFound as error:
            raise _no_git() from error
        except python.GitCommandError as error:
            raise _error(url, str(error.stderr)) from error


def _error(url: str, said: str) -> RepositoryError:
    lines = [line for line in without_password(said).strip().strip("'").splitlines() if line.strip()]
    tail = "\n".join(f"  {line.strip()}" for line in lines[-6:])
    where = without_password(url)
    for words, message, fix in _KNOWN_FAILURES:
        if any(word in said.lower() for word in words):
            return RepositoryError(f"SimpleTuner's repository {where}: {message}\n{tail}", fix=fix)
    message = f"SimpleTuner's repository {where} can't be read:\n{tail}"
    return RepositoryError(message, fix="Read what git says above, then install again.", understood=False)


@contextmanager
def _clean_environment() -> Iterator[None]:
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
