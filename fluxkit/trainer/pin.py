"""From what a project asks for to what it gets: the pin, resolved once and then kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.trainer.lock import Lock, SourceKind, shipped_lock
from fluxkit.trainer.lockfile import read_lock_file
from fluxkit.trainer.releases import Release, find_release
from fluxkit.trainer.sources.pypi import lock_from_index


@dataclass(frozen=True)
class Pin:
    """What `[simpletuner]` asks for.

    Args:
        version: the release, without a `v`.
        platform: `cpu` or `cuda`.
        source: where the code comes from.
        mirror: address of a clone to use instead of the public repository; for source `git`.
        path: the folder of a checkout, absolute; for source `path`.
    """

    version: str
    platform: str
    source: SourceKind = "pypi"
    mirror: str | None = None
    path: Path | None = None

    @property
    def release(self) -> Release:
        """The facts about it.

        Raises:
            UserError: no version that fluxkit could know.
        """
        return find_release(self.version)


def locked(pin: Pin, lock_file: Path) -> Lock | None:
    """What the pin resolved to already: by the project's lock, else by one that fluxkit ships; else None.

    Raises:
        UserError: the project's lock can't be read.
    """
    kept = read_lock_file(lock_file).get(pin.platform)
    if kept is not None and _serves(kept.lock, pin):
        return kept.lock
    return shipped_lock(pin.release, pin.platform) if pin.source == "pypi" else None


def resolve(pin: Pin, lock_file: Path, report: Callable[[str], None] = lambda _: None) -> Lock:
    """`locked`, or a resolution made now.

    Args:
        pin: what is asked for.
        lock_file: the project's `fluxkit.lock`; not written here.
        report: called with one line for each stage.

    Raises:
        UserError: the release can't come from that source.
        InstallError: no network, or its requirements can't be met together.
    """
    release = pin.release
    if pin.source not in release.sources:
        raise UserError(
            f'SimpleTuner {release.version} can\'t come from source = "{pin.source}".',
            fix=f"Set source in [simpletuner] to one of: {', '.join(release.sources)}.",
        )
    return locked(pin, lock_file) or lock_from_index(release, pin.platform, report)


def _serves(lock: Lock, pin: Pin) -> bool:
    same = (lock.release.version, lock.source.kind) == (pin.release.version, pin.source)
    return same and (pin.source != "path" or lock.source.path == pin.path)
