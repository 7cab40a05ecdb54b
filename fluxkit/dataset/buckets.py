"""The trainer's buckets, simulated: which pictures it takes, and whether they fill a batch.

With `crop_aspect: square` every usable picture of a resolution lands in one bucket, 1.0, in every release from 1.2 on.
An epoch shows each picture `repeats + 1` times.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.eras import Era, era_of
from fluxkit.dataset.geometry import Size, is_large_enough, trained_edge
from fluxkit.dataset.model import DatasetRules, Finding, ImageFacts


@dataclass(frozen=True)
class Bucket:
    """The pictures of one resolution.

    Args:
        resolution: edge of the square crop as configured, in pixels.
        images: how many pictures the trainer takes.
        samples: how many an epoch shows.
        edge: edge of the square crop that the trainer makes, in pixels.
        left_out: pictures that reach the resolution and are left out all the same.
        sideways: pictures that are trained turned or mirrored, because the release ignores their EXIF orientation.
    """

    resolution: int
    images: int
    samples: int
    edge: int = 0
    left_out: tuple[Path, ...] = ()
    sideways: tuple[Path, ...] = ()


def simulate_buckets(images: Iterable[ImageFacts], rules: DatasetRules) -> list[Bucket]:
    """One bucket a resolution, with the pictures that the pinned release takes."""
    era = era_of(rules.release)
    images = list(images)
    buckets = []
    for resolution in rules.resolutions:
        taken = [facts for facts in images if is_taken(facts, resolution, era)]
        paths = {facts.path for facts in taken}
        reach = [facts.path for facts in images if min(facts.width, facts.height) >= resolution]
        left_out = tuple(path for path in reach if path not in paths)
        sideways = tuple(facts.path for facts in taken if is_sideways(facts, rules))
        samples = len(taken) * (rules.repeats + 1)
        edge = trained_edge(resolution, era)
        buckets.append(Bucket(resolution, len(taken), samples, edge, left_out, sideways))
    return buckets


def is_taken(facts: ImageFacts, resolution: int, era: Era) -> bool:
    """Whether the release sees the picture's file, and finds it large enough."""
    seen = era.any_case or facts.path.suffix == facts.path.suffix.lower()
    return seen and is_large_enough(seen_size(facts, era), resolution)


def seen_size(facts: ImageFacts, era: Era) -> Size:
    """Width and height as the trainer reads them, which may be those of the picture lying on its side."""
    size = facts.width, facts.height
    return size if facts.format in era.upright or facts.orientation < 5 else size[::-1]


def is_sideways(facts: ImageFacts, rules: DatasetRules) -> bool:
    """Whether the pinned release trains the picture as it lies in its pixels, not as viewers show it."""
    return bool(rules.release) and facts.orientation != 1 and facts.format not in era_of(rules.release).upright


def bucket_findings(folder: Path, buckets: Iterable[Bucket], rules: DatasetRules) -> Iterator[Finding]:
    """What the trainer would refuse, leave out, turn or resize without a word."""
    buckets = list(buckets)
    for bucket in buckets:
        yield from _resolution_findings(folder, bucket, rules)
    for path in dict.fromkeys(path for bucket in buckets for path in bucket.sideways):
        message = f"SimpleTuner {rules.release} ignores the EXIF orientation and would train the photo turned."
        fix = "Run `fluxkit prepare`, which writes upright copies, or save the photo upright."
        yield Finding("image.sideways", "error", path, message, fix)


def _resolution_findings(folder: Path, bucket: Bucket, rules: DatasetRules) -> Iterator[Finding]:
    size = f"{bucket.resolution}×{bucket.resolution}"
    if not bucket.images:
        message = f"No photo is large enough for {size}: the trainer would stop."
        fix = f"Add larger photos, or take {bucket.resolution} out of [dataset] resolutions."
        yield Finding("bucket.empty", "error", folder, message, fix)
    elif bucket.samples < rules.batch_size:
        several = f" ({rules.processes} GPUs together)" if rules.processes > 1 else ""
        samples = f"{bucket.samples} samples at {bucket.resolution}"
        message = f"{samples} don't fill one step of {rules.batch_size} images{several}."
        fewer = "use fewer GPUs, " if several else ""
        fix = f"Raise [dataset] repeats, add photos, {fewer}or lower the batch size and the gradient accumulation."
        yield Finding("bucket.batch", "error", folder, message, fix)
    elif bucket.images < rules.processes:
        # Each process gets its share of the photos, and repeats only those.
        message = f"{bucket.images} photos at {bucket.resolution} are too few to share among {rules.processes} GPUs."
        fix = f"Add photos, or train on {bucket.images} GPUs at the most (--gpus)."
        yield Finding("bucket.gpus", "error", folder, message, fix)
    for path in bucket.left_out if rules.release else ():
        yield _left_out(path, bucket, rules)
    if rules.release and bucket.edge not in (0, bucket.resolution):
        message = (
            f"SimpleTuner {rules.release} makes {bucket.edge}×{bucket.edge} of the resolution {bucket.resolution}."
        )
        era = era_of(rules.release)
        exact = [edge for edge in range(64, 4097, 64) if trained_edge(edge, era) == edge]
        nearest = sorted(sorted(exact, key=lambda edge: abs(edge - bucket.resolution))[:2])
        fix = f"Choose {nearest[0]} or {nearest[1]} in [dataset] resolutions, which stay what they are."
        yield Finding("bucket.rounded", "warning", folder, message, fix)


def _left_out(path: Path, bucket: Bucket, rules: DatasetRules) -> Finding:
    if path.suffix != path.suffix.lower():
        message = f"SimpleTuner {rules.release} doesn't see files named {path.suffix}: the photo would be left out."
        return Finding("bucket.left-out", "error", path, message, f'Rename it to "{path.stem}{path.suffix.lower()}".')
    message = f"Exactly {bucket.resolution} pixels: the trainer's rounding would leave the photo out, without a word."
    fix = f"Use a slightly larger version, or another resolution than {bucket.resolution}."
    return Finding("bucket.left-out", "error", path, message, fix)
