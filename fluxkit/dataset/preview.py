"""What training will see of a dataset: each photo's crop, epochs, caches on disk, time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.buckets import Bucket, is_sideways, is_taken, seen_size, simulate_buckets
from fluxkit.dataset.eras import Era, era_of
from fluxkit.dataset.geometry import BUCKET, Box, Size, prepare
from fluxkit.dataset.model import DatasetRules, ImageFacts

# FLUX.1: the VAE makes 16 channels of an eighth of the edge; on a GPU they are kept in bfloat16.
_CHANNELS, _DOWNSAMPLING = 16, 8
GPU_VALUE_BYTES = 2
# T5-XXL's 512 tokens of 4096 values and CLIP's pooled 768 in bfloat16, position ids in float32, a mask in int64.
_TEXT_BYTES = 512 * 4096 * 2 + 768 * 2 + 512 * 3 * 4 + 512 * 8
_FILE_BYTES = 1700  # torch's zip container around one tensor (measured: 1.6 kB)
_MOST_CAPTION_BYTES = 65_536


@dataclass(frozen=True)
class Crop:
    """What the trainer makes of a photo at one resolution.

    Args:
        resolution: as configured.
        bucket: the bucket's name: width / height of the crop.
        box: left, top, right and bottom of the crop in the photo as viewers show it, in pixels.
        final: width and height of what is trained.
        scale: pixels trained for each pixel of the photo, along an edge; above 1 the photo is blown up.
    """

    resolution: int
    bucket: str
    box: tuple[int, int, int, int]
    final: Size
    scale: float


@dataclass(frozen=True)
class Picture:
    """A photo as training sees it.

    Args:
        path: the file.
        crops: one for each resolution that it is large enough for.
        left_out: the resolutions that it is left out of.
        sideways: whether it is trained turned or mirrored (its EXIF orientation is ignored).
    """

    path: Path
    crops: tuple[Crop, ...]
    left_out: tuple[int, ...]
    sideways: bool


@dataclass(frozen=True)
class Pace:
    """How fast this machine trains.

    Args:
        seconds_per_step: the median of a run's steps, without validation images and checkpoints.
        run: the id of the run that it was measured in.
        comparable: whether that run had this project's profile, resolutions and batch size.
    """

    seconds_per_step: float
    run: str
    comparable: bool


@dataclass(frozen=True)
class TrainingPreview:
    """The whole run, seen beforehand.

    Args:
        rules: what the project asks for.
        pictures: every readable photo, in the report's order.
        buckets: one a resolution.
        batches: of an epoch, `batch_size / accumulation` photos each. With several processes, those of the first,
            which has the largest share of the photos where they don't come out even.
        steps_per_epoch: optimizer steps until every photo was shown `repeats + 1` times at each resolution.
        captions: different captions.
        vae_bytes: the cache of encoded photos on disk, at most; it may be compressed.
        text_bytes: the cache of encoded captions on disk, at most; the project's prompts come on top.
        pace: this machine's, or None where it has not trained yet.
    """

    rules: DatasetRules
    pictures: tuple[Picture, ...]
    buckets: tuple[Bucket, ...]
    batches: int
    steps_per_epoch: int
    captions: int
    vae_bytes: int
    text_bytes: int
    pace: Pace | None

    @property
    def epochs(self) -> float:
        """How often every photo comes by with all its repeats."""
        return self.rules.steps / self.steps_per_epoch if self.steps_per_epoch else 0.0

    @property
    def views(self) -> float:
        """How often a photo is shown over the whole run, at all resolutions together, on average."""
        used = sum(1 for picture in self.pictures if picture.crops)
        return self.rules.steps * self.rules.batch_size / used if used else 0.0

    @property
    def seconds(self) -> float | None:
        """The time of all steps; validation images and checkpoints come on top."""
        return None if self.pace is None else self.rules.steps * self.pace.seconds_per_step


def preview_training(images: Iterable[ImageFacts], rules: DatasetRules, pace: Pace | None = None) -> TrainingPreview:
    """Simulate the pinned release on readable photos."""
    images = list(images)
    era = era_of(rules.release)
    buckets = tuple(simulate_buckets(images, rules))
    shares = [math.ceil(bucket.images / rules.processes) * (rules.repeats + 1) for bucket in buckets]
    batch = max(1, rules.batch_size // max(1, rules.accumulation * rules.processes))
    batches = sum(math.ceil(share / batch) for share in shares if share >= batch)
    captions = _distinct_captions(images, rules)
    return TrainingPreview(
        rules=rules,
        pictures=tuple(_picture(facts, rules, era) for facts in images),
        buckets=buckets,
        batches=batches,
        steps_per_epoch=math.ceil(batches / max(1, rules.accumulation)),
        captions=captions,
        vae_bytes=sum(bucket.images * latent_bytes(bucket.edge) for bucket in buckets),
        text_bytes=captions * (_TEXT_BYTES + _FILE_BYTES),
        pace=pace,
    )


def latent_bytes(edge: int, *, value_bytes: int = GPU_VALUE_BYTES) -> int:
    """Size of one encoded photo's file, uncompressed.

    Args:
        edge: of the square crop, in pixels.
        value_bytes: 2 on a GPU; without one the trainer keeps float32, 4.
    """
    return _CHANNELS * (edge // _DOWNSAMPLING) ** 2 * value_bytes + _FILE_BYTES


def read_caption(picture: Path) -> str | None:
    """The text beside a picture, as far as it can be read; None where there is none."""
    path = picture.with_suffix(".txt")
    try:
        if not path.is_file():  # a pipe would never end
            return None
        with path.open("rb") as handle:
            return handle.read(_MOST_CAPTION_BYTES).decode("utf-8", "replace").removeprefix("\ufeff")
    except (OSError, ValueError):
        return None


def _distinct_captions(images: Iterable[ImageFacts], rules: DatasetRules) -> int:
    if rules.captions == "trigger":
        return 1
    lines = {line.strip() for facts in images for line in (read_caption(facts.path) or "").split("\n")}
    return len(lines - {""})


def _picture(facts: ImageFacts, rules: DatasetRules, era: Era) -> Picture:
    taken = [resolution for resolution in rules.resolutions if is_taken(facts, resolution, era)]
    return Picture(
        path=facts.path,
        crops=tuple(_crop(facts, resolution, era) for resolution in taken),
        left_out=tuple(resolution for resolution in rules.resolutions if resolution not in taken),
        sideways=is_sideways(facts, rules),
    )


def _crop(facts: ImageFacts, resolution: int, era: Era) -> Crop:
    size = seen_size(facts, era)
    made = prepare(size, resolution, era)
    box = made.box(size)
    if facts.format not in era.upright:
        box = _turned(box, size, facts.orientation)
    left, top, right, bottom = (round(edge) for edge in box)
    return Crop(resolution, BUCKET, (left, top, right, bottom), made.final, made.scaled[0] / size[0])


def _turned(box: Box, size: Size, orientation: int) -> Box:
    """A box in the pixels as stored, in the picture as viewers turn it by its EXIF orientation."""
    left, top, right, bottom = box
    width, height = size
    match orientation:
        case 2:
            return width - right, top, width - left, bottom
        case 3:
            return width - right, height - bottom, width - left, height - top
        case 4:
            return left, height - bottom, right, height - top
        case 5:
            return top, left, bottom, right
        case 6:
            return height - bottom, left, height - top, right
        case 7:
            return height - bottom, width - right, height - top, width - left
        case 8:
            return top, width - right, bottom, width - left
    return box
