"""SimpleTuner from its git repository: a tag, locked to the commit that it pointed to.

Tags can be moved; commits can't be forged. So the commit is what is locked, a tag that moved is never followed
silently, and the locked commit itself may be installed whenever it can still be had.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from packaging.version import InvalidVersion, Version

from fluxkit.errors import InstallError, UserError
from fluxkit.files import waiting_lock
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.lockfile import without_password
from fluxkit.trainer.releases import Release
from fluxkit.trainer.sources.checkout import lock_from_checkout, open_checkout
from fluxkit.trainer.sources.gitcommand import RepositoryError
from fluxkit.trainer.sources.repository import Repository

DEFAULT_URL = "https://github.com/bghira/SimpleTuner.git"
Report = Callable[[str], None]


def lock_from_git(release: Release, platform: str, url: str, report: Report) -> Lock:
    """Find the release's tag, fetch it, and lock its commit and its packages.

    Args:
        release: what is asked for.
        platform: `cpu` or `cuda`.
        url: of the repository or a mirror of it.
        report: called with one line for each stage.

    Raises:
        UserError: there is no such tag, or it holds another version.
        InstallError: no network, no git, or its requirements can't be met together.
    """
    repository = Repository(url)
    commit = _find(repository, release, report)
    source = Source("git", url, commit)
    folder = _write_checkout(repository, source, release, report)
    day = repository.day_of(commit)
    return lock_from_checkout(release, platform, open_checkout(folder), source, day, report)


def ensure_checkout(lock: Lock, report: Report) -> Path:
    """The clean checkout of a lock's commit, made if it is not there; checked against the repository otherwise.

    Raises:
        InstallError: the commit can't be had, or the tag moved and the commit is gone with it.
    """
    source, release = lock.source, lock.release
    repository = Repository(source.url)
    tag = release.tag
    try:
        now = repository.upstream_tags().get(tag)
    except RepositoryError as error:
        now = source.commit
        if not (_is_written(source) or repository.has(source.commit)):
            raise
        report(f"{error.message.splitlines()[0]} Taking SimpleTuner {release.version} from the cache.")
    if now != source.commit:
        _say_moved(repository, release, source, now, report)
    elif not repository.has(source.commit) and not _is_written(source):
        report(f"Fetching SimpleTuner {release.version} from {without_password(source.url)}")
        repository.fetch(f"refs/tags/{tag}", f"refs/tags/{tag}")
    return _write_checkout(repository, source, release, report)


def _find(repository: Repository, release: Release, report: Report) -> str:
    tag = release.tag
    try:
        tags = repository.upstream_tags()
    except RepositoryError as error:
        cached = repository.cached_tag(tag)
        if cached is None:
            raise
        report(f"{error.message.splitlines()[0]} Taking {tag} as it was when it was fetched.")
        return _known(release, cached)
    if tag not in tags:
        raise UserError(
            f"{without_password(repository.url)} has no tag {tag}.{_nearest(release.version, tags)}",
            fix="Set version in [simpletuner] of fluxkit.toml to a release that it has a tag for.",
        )
    commit = _known(release, tags[tag])
    if not repository.has(commit):
        report(f"Fetching SimpleTuner {release.version} from {without_password(repository.url)}")
        repository.fetch(f"refs/tags/{tag}", f"refs/tags/{tag}")
    if not repository.has(commit):
        raise InstallError(
            f"The tag {tag} of {without_password(repository.url)} moved while it was fetched.",
            fix="Run the same command again.",
        )
    return commit


def _known(release: Release, commit: str) -> str:
    """The commit, unless fluxkit knows that the release is another one."""
    expected = release.commit
    if expected and commit != expected:
        raise InstallError(
            f"The tag v{release.version} points to {commit[:12]}; the SimpleTuner {release.version} that fluxkit knows "
            f"is {expected[:12]}. The tag moved upstream, or the mirror is a changed copy.",
            fix='Use the public repository, or source = "pypi". For a copy of your own, check it out and use '
            'source = "path".',
        )
    return commit


def _say_moved(repository: Repository, release: Release, source: Source, now: str | None, report: Report) -> None:
    """A tag that moved (or is gone) is never followed; the locked commit serves while it can be had."""
    state = f"moved upstream, to {now[:12]}" if now else "is gone upstream"
    if not (_is_written(source) or repository.has(source.commit)):
        try:
            # Some servers give a commit by its hash even when no tag leads to it any more.
            repository.fetch(source.commit, f"refs/fluxkit/{source.commit}")
        except RepositoryError as error:
            raise InstallError(
                f"The tag v{release.version} {state}; fluxkit.lock holds {source.commit[:12]}, which can't be had any "
                f"more. Nothing was changed.",
                fix="Find out why the tag moved. If you trust the new one, delete fluxkit.lock and run "
                "`fluxkit install`.",
            ) from error
    report(
        f"Warning: the tag v{release.version} {state}. Installing {source.commit[:12]}, as fluxkit.lock says; "
        "delete fluxkit.lock to follow the tag."
    )


def _is_written(source: Source) -> bool:
    return source.folder is not None and source.folder.is_dir()


def _write_checkout(repository: Repository, source: Source, release: Release, report: Report) -> Path:
    """Make the checkout beside its place and rename it; one that somebody changed is made anew."""
    target = source.folder
    if target is None:
        raise TypeError("a git source has a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(target, lambda: report("Waiting for another fluxkit that fetches SimpleTuner")):
        for left in target.parent.glob(f".{source.commit}.*"):  # of one that was killed
            shutil.rmtree(left, ignore_errors=True)
        if target.is_dir():
            if not repository.has(source.commit) or not repository.differs(source.commit, target):
                return target
            report("Somebody changed files of the checkout; making it anew")
        with tempfile.TemporaryDirectory(prefix=f".{source.commit}.", dir=target.parent) as temporary:
            made = Path(temporary, "new")
            made.mkdir()
            report(f"Checking out SimpleTuner {release.version} ({source.commit[:12]})")
            _fill(repository, source.commit, made, release, report)
            if target.exists():
                target.rename(Path(temporary, "old"))
            made.rename(target)
    return target


def _fill(repository: Repository, commit: str, made: Path, release: Release, report: Report) -> None:
    try:
        repository.write_files(commit, made)
    except RepositoryError as error:
        if error.understood:
            raise
        report("The copy of the repository in the cache is damaged; fetching it anew")
        repository.remove()
        repository.fetch(f"refs/tags/{release.tag}", f"refs/tags/{release.tag}")
        repository.write_files(commit, made)


def _nearest(version: str, tags: dict[str, str]) -> str:
    known = []
    for tag in tags:
        try:
            known.append(Version(tag.removeprefix("v")))
        except InvalidVersion:
            continue
    older = [one for one in known if one <= Version(version)]
    if not known:
        return " It has no tags of releases at all."
    return f" The nearest is v{max(older) if older else min(known)}."
