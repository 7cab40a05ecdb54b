"""Before a launch: what the trainer cached from photos that changed since is dropped, and said."""

from collections.abc import Sequence
from typing import Any

from fluxkit.commands.assemble import Assembled
from fluxkit.console import Output
from fluxkit.trainer.caches import CacheChange, Photos, refresh_cache
from fluxkit.trainer.runs import Run


def refresh_caches(run: Run, assembled: Assembled, names: Sequence[str], out: Output) -> list[CacheChange]:
    """Bring the caches of each image backend in line with the photos.

    Args:
        run: the run to launch.
        assembled: its rendered config.
        names: every photo that it trains on, relative to the photos' folder.
        out: where to say what changed.
    """
    photos = Photos(assembled.request.dataset_dir, names)
    backends: Any = assembled.rendered.documents["multidatabackend.json"]
    found = [refresh_cache(each, photos, run.output_dir) for each in backends if "cache_dir_vae" in each]
    changed = next((each for each in found if each), None)
    if changed and any(each.dropped for each in found):
        out.say(f"Photos are not as they were when they were cached: {_describe(changed)}. They are encoded anew.")
    return found


def _describe(change: CacheChange) -> str:
    words = [("changed", change.changed), ("new or unknown", change.added), ("gone", change.gone)]
    return ", ".join(f"{len(names)} {word}" for word, names in words if names)
