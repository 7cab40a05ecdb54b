"""A bare copy of SimpleTuner's repository in the user's cache, with the tags that were asked for.

A kill leaves at most a stale lock file, which the next call removes.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fluxkit.errors import InstallError
from fluxkit.files import cache_dir, waiting_lock
from fluxkit.trainer.sources.gitcommand import RepositoryError, git

_DAY = ("show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%d")  # TZ is UTC


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
            for options in (("--depth", "1"), ()):  # a plain web server can't shorten history
                try:
                    return self._fetch(*options, what=what, target=target)
                except RepositoryError as error:
                    if error.understood:
                        raise
            # A crash may have damaged the copy.
            shutil.rmtree(self.folder)
            self._prepare()
            self._fetch(what=what, target=target)

    def remove(self) -> None:
        """Remove the bare copy: it is a cache."""
        with self.locked():
            shutil.rmtree(self.folder, ignore_errors=True)

    def day_of(self, commit: str) -> str:
        """The commit's day (ISO, UTC)."""
        return self._git(*_DAY, commit)

    def write_files(self, commit: str, folder: Path) -> None:
        """Write the commit's files into an empty folder, exactly as they are in the repository."""
        with self._index(commit, folder) as work:
            self._git(*work, "checkout-index", "--all", "--force", index=_index_of(folder))

    def differs(self, commit: str, folder: Path) -> bool:
        """Whether the folder's files are not the commit's: changed, missing or added."""
        with self._index(commit, folder) as work:
            with contextlib.suppress(RepositoryError):  # it fails when files differ, and fills the index's stamps
                self._git(*work, "update-index", "--refresh", "-q", index=_index_of(folder))
            changed = self._git(*work, "diff-files", "--name-only", index=_index_of(folder))
            return bool(changed or self._git(*work, "ls-files", "--others", index=_index_of(folder)))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One fluxkit at a time."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(self.folder, lambda: None):
            yield

    @contextmanager
    def _index(self, commit: str, folder: Path) -> Iterator[tuple[str, ...]]:
        index = _index_of(folder)
        Path(f"{index}.lock").unlink(missing_ok=True)  # of a git that was killed
        try:
            self._git("read-tree", commit, index=_index_of(folder))
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
        where = [f"--git-dir={self.folder}"] if bare else []
        return git([*where, *arguments], home=self.folder.parent, url=self.url, index=index)


def tags_at_head(folder: Path) -> tuple[list[str], str]:
    """The tags on a work tree's current commit, and that commit's day; nothing for a folder that git doesn't know.

    Only the folder's own repository counts, not one that it lies in.
    """
    if not (folder / ".git").exists():
        return [], ""
    with contextlib.suppress(InstallError):
        tags = git(["tag", "--points-at", "HEAD"], home=folder, url=str(folder)).split()
        return tags, git([*_DAY, "HEAD"], home=folder, url=str(folder))
    return [], ""


def _index_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.index")
