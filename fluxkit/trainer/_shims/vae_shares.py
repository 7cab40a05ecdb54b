"""Shim: caching latents leaves each process with its own share of the photos.

Why: `VAECache.process_buckets` adds every photo that has no latents yet to a copy of the buckets, and the copy shares
its lists with the buckets themselves: in a run without a cache, which a first run is, each process gets all photos
back after they were shared out. Then processes train on the same photos, and an epoch takes as many steps as with one.
Fixed upstream by 4.9.3, which copies the lists, as here.
Bound to: the releases of the defect `vae-shares` in releases.toml, where several processes train.
Seen, 2026-11-24, SimpleTuner 4.8.0, 2 processes, 6 photos: 6,006 steps an epoch in the first run, 3,003 in the next.
"""

import functools
from typing import Any

MODULES = ("simpletuner.helpers.caching.vae", "helpers.caching.vae")


def apply(vae: Any) -> None:
    """Give `process_buckets` buckets of its own."""
    process_buckets = vae.VAECache.process_buckets

    @functools.wraps(process_buckets)
    def on_a_copy(self: Any, *args: Any, **options: Any) -> Any:
        backend = self.metadata_backend
        read_cache = backend.read_cache
        backend.read_cache = lambda: {bucket: list(photos) for bucket, photos in read_cache().items()}
        try:
            return process_buckets(self, *args, **options)
        finally:
            del backend.read_cache  # the class's own is there again

    vae.VAECache.process_buckets = on_a_copy
