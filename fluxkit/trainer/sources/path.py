"""SimpleTuner from a folder on this machine: used in place, never written to, and not pinned.

What the folder holds can change at any time; fluxkit locks the packages around it, and says so.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.releases import Release
from fluxkit.trainer.sources.checkout import lock_from_checkout, open_checkout
from fluxkit.trainer.sources.repository import tags_at_head


def lock_from_path(release: Release, platform: str, folder: Path, report: Callable[[str], None]) -> Lock:
    """Lock the packages that the folder's SimpleTuner needs.

    Args:
        release: what it should be.
        platform: `cpu` or `cuda`.
        folder: the top of a checkout, absolute.
        report: called with one line for each stage.

    Raises:
        UserError: it is no checkout, or one of another version.
        InstallError: no network, or its requirements can't be met together.
    """
    checkout = open_checkout(folder)
    tags, day = tags_at_head(folder)
    versions = [tag.removeprefix("v") for tag in tags]
    if tags and release.version not in versions:
        raise UserError(
            f"{folder} is at {', '.join(tags)}, not at v{release.version}.",
            fix="Set version in [simpletuner] of fluxkit.toml to it, or check out the pinned tag there.",
        )
    if not checkout.version and not tags:
        report(f"{folder} does not say which SimpleTuner it is: taken for {release.version}, as fluxkit.toml says")
    report(f"{folder} is used in place and is not pinned: when its files change, so does the training")
    today = datetime.now(UTC).date().isoformat()
    return lock_from_checkout(release, platform, checkout, Source("path", path=folder), day or today, report)
