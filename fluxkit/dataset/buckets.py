"""The trainer's buckets, simulated: which pictures it groups, and whether a group fills a batch.

With `crop_aspect: square` every usable picture of a resolution lands in one bucket, of aspect 1.0 (measured:
SimpleTuner's `helpers/metadata/backends`). An epoch shows each picture `repeats + 1` times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.model import DatasetRules, Finding, ImageFacts


@dataclass(frozen=True)
class Bucket:
    """The pictures of one resolution.

    Args:
        resolution: edge of the square crop, in pixels.
        images: how many pictures are large enough.
        samples: how many an epoch shows.
    """

    resolution: int
    images: int
    samples: int


def simulate_buckets(images: Iterable[ImageFacts], rules: DatasetRules) -> list[Bucket]:
    """One bucket a resolution; a picture counts where both its edges reach the resolution."""
    edges = [min(facts.width, facts.height) for facts in images]
    buckets = []
    for resolution in rules.resolutions:
        count = sum(edge >= resolution for edge in edges)
        buckets.append(Bucket(resolution, count, count * (rules.repeats + 1)))
    return buckets


def bucket_findings(folder: Path, buckets: Iterable[Bucket], rules: DatasetRules) -> Iterator[Finding]:
    """Resolutions that the trainer would refuse ("No images were discovered…", "zero usable batches")."""
    for bucket in buckets:
        if not bucket.images:
            message = f"No photo is large enough for {bucket.resolution}×{bucket.resolution}: the trainer would stop."
            fix = f"Add larger photos, or take {bucket.resolution} out of [dataset] resolutions."
            yield Finding("bucket.empty", "error", folder, message, fix)
        elif bucket.samples < rules.batch_size:
            message = (
                f"{bucket.samples} samples at {bucket.resolution} don't fill one step of {rules.batch_size} images."
            )
            fix = "Raise [dataset] repeats, add photos, or lower the batch size and the gradient accumulation."
            yield Finding("bucket.batch", "error", folder, message, fix)
