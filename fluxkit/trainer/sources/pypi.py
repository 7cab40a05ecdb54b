"""SimpleTuner from the package index, for releases that fluxkit ships no lock for.

Resolved as of the release's own day: its requirements are floors, and what came later was never tried with it.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from fluxkit.errors import UserError
from fluxkit.textmatch import did_you_mean
from fluxkit.trainer.index import published
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.releases import Release
from fluxkit.trainer.resolve import resolve_requirements


def lock_from_index(release: Release, platform: str, report: Callable[[str], None]) -> Lock:
    """Resolve a release and everything that it needs, with hashes.

    Raises:
        UserError: the index has no such release.
        InstallError: no network, or the requirements can't be met together.
    """
    known = published()
    entry = known.get(release.version)
    if entry is None:
        near = did_you_mean(release.version, reversed(list(known)))
        raise UserError(
            f"The package index has no SimpleTuner {release.version}.{near}",
            fix=f"Set version in [simpletuner] to another; the newest is {list(known)[-1]}.",
        )
    # The day after: exclude-newer is a point in time, and the wheel itself must lie before it.
    as_of = (entry.uploaded + timedelta(days=1)).date().isoformat()
    release = replace(release, python=entry.requires_python, as_of=as_of)
    report(f"Resolving SimpleTuner {release.version} ({platform}) as of {as_of}")
    extra = release.extras.get(platform)
    text = resolve_requirements(
        f"simpletuner{f'[{extra}]' if extra else ''}=={release.version}",
        python=release.python,
        as_of=as_of,
        constraints=release.constraints,
        overrides=getattr(release, "overrides", ()),
    )
    return Lock(release, platform, text, as_of=as_of, origin="resolved")
