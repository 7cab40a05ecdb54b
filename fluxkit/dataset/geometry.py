"""What the trainer makes of one picture at one resolution: its bucket, its size after scaling, its square crop.

Pure arithmetic on sizes, rewritten from what each release does (see `eras.py`). fluxkit renders `crop: true`,
`crop_style: center`, `crop_aspect: square` for every backend; the resolution counts as `pixel_area`, in a rehearsal as
`pixel`. FLUX aligns edges to 64 pixels whatever the options say.
"""

import math
from dataclasses import dataclass

from fluxkit.dataset.eras import Era

ALIGNMENT = 64
BUCKET = "1.0"  # every square crop; the name of the bucket is its width / height
_ROUNDING = 2  # `--aspect_bucket_rounding` as fluxkit renders it
_EDGES = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}

Size = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Prepared:
    """One picture, ready for the VAE.

    Args:
        scaled: width and height that it is scaled to before the crop, in pixels.
        final: width and height of the crop: what is trained.
        left: the crop's left edge in the scaled picture; negative where the scaled picture is too narrow.
        top: its top edge.
        intermediary: the size that the trainer writes into its metadata; up to 3.0.7 not the one that it scales to.
    """

    scaled: Size
    final: Size
    left: float
    top: float
    intermediary: Size

    def coordinates(self, era: Era) -> tuple[float, float]:
        """The crop's corner as the release writes it into its metadata."""
        return (self.left, self.top) if era.coordinates == "left-top" else (self.top, self.left)

    def box(self, size: Size) -> Box:
        """Left, top, right and bottom of the crop in the picture of that size, within its edges."""
        across, down = size[0] / self.scaled[0], size[1] / self.scaled[1]
        # Pillow rounds the halves that releases before 1.3.0 hand it.
        left, top = round(self.left), round(self.top)
        return (
            max(0.0, left * across),
            max(0.0, top * down),
            min(float(size[0]), (left + self.final[0]) * across),
            min(float(size[1]), (top + self.final[1]) * down),
        )


def is_large_enough(size: Size, resolution: int, *, rehearsal: bool = False) -> bool:
    """Whether the trainer keeps a picture; it leaves others out without a word.

    With `pixel_area` the minimum goes through megapixels and back, in floating point: at six of the possible
    resolutions (1008, 2016, 2032, 2832, 4032, 4064) a picture of exactly that size is left out too.
    """
    width, height = size
    if rehearsal:
        return min(size) >= resolution
    pixels = resolution * resolution / 1_000_000 * 1_000_000
    return min(size) >= math.floor(math.sqrt(pixels)) and pixels <= width * height


def prepare(size: Size, resolution: int, era: Era, *, rehearsal: bool = False) -> Prepared:
    """What becomes of a picture that is large enough.

    Args:
        size: width and height as the trainer sees them (see `Era.upright`).
        resolution: edge in pixels, as configured.
        era: the release's rules.
        rehearsal: `pixel` mode without a maximum size.
    """
    if rehearsal:
        edge = resolution
        intermediary = _by_edge(size, resolution, era)
    else:
        edge = trained_edge(resolution, era)
        ratio = 1.0 if era.true_ratio else _ratio(size)
        intermediary = _by_area(ratio, resolution, size, era)
    if intermediary[0] < edge:
        intermediary = (edge, edge)
    scaled = _scaled(size, resolution, edge, intermediary, era, rehearsal=rehearsal)
    left, top = (_middle(have - edge, era) for have in scaled)
    return Prepared(scaled, (edge, edge), left, top, intermediary)


def trained_edge(resolution: int, era: Era) -> int:
    """The edge of the crop that a `pixel_area` resolution becomes: aligned, and near a round area that area's."""
    area = resolution * resolution / 1_000_000
    if not era.snapped_areas:
        return _align(math.sqrt(area * 1024**2))
    snapped = next((edge for megapixels, edge in _EDGES.items() if abs(area - megapixels) < 0.05), None)
    return _align(snapped or math.sqrt(area * 1_000_000))


def _scaled(size: Size, resolution: int, edge: int, intermediary: Size, era: Era, *, rehearsal: bool) -> Size:
    """The size that the picture has when it is cropped."""
    if not rehearsal and not _is_just_right(size, resolution, edge, era):
        return _cover(_by_area(_ratio(size), resolution, size, era), edge)
    return intermediary if era.true_ratio else size


def _is_just_right(size: Size, resolution: int, edge: int, era: Era) -> bool:
    area = resolution * resolution / 1_000_000
    if era.snapped_areas:
        near = next((side for megapixels, side in _EDGES.items() if abs(area - megapixels) < 0.05), None)
    else:
        near = _EDGES.get(area)
    target = near * near if near else area * 1_000_000
    return size[0] * size[1] == target and min(size) >= edge


def _cover(size: Size, edge: int) -> Size:
    """Grow the size until its first short edge reaches `edge`; the other may still fall short, as upstream."""
    width, height = size
    if width < edge:
        return edge, int(height * (edge / width))
    if height < edge:
        return int(width * (edge / height)), edge
    return size


def _by_area(ratio: float, resolution: int, size: Size, era: Era) -> Size:
    """The size to scale to, so that a crop of the resolution's area and of about `ratio` fits into it."""
    edge = _align(int(math.sqrt(resolution * resolution / 1_000_000 * 1e6)))
    width, height = size
    if ratio == 1.0 and width == height:
        return edge, edge
    if ratio == 1.0 and not era.true_ratio:
        return size
    wide, high = _align(edge * math.sqrt(ratio)), _align(edge / math.sqrt(ratio))
    shape = width / height if era.true_ratio else ratio
    scaled_width, scaled_height = (wide, int(wide / shape)) if wide < high else (int(high * shape), high)
    if wide > scaled_width:
        more = wide - scaled_width
        return scaled_width + more, scaled_height + int(more / shape)
    if high > scaled_height:
        more = high - scaled_height
        return scaled_width + int(more * shape), scaled_height + more
    return scaled_width, scaled_height


def _by_edge(size: Size, resolution: int, era: Era) -> Size:
    """The size that `pixel` mode writes down, and from 3.0.8 on scales to."""
    width, height = size
    if not era.true_ratio:
        ratio = _ratio(size)
        first = (resolution, int(resolution / ratio)) if width < height else (int(resolution * ratio), resolution)
        lacking = max(0, *(_align(edge) - edge for edge in first))
        return first[0] + lacking, first[1] + lacking
    edge = max(_align(resolution), resolution)
    aligned, shape = _align(resolution), width / height
    if shape >= 1.0:
        scaled = int(edge * shape), edge
        return scaled if scaled[0] >= aligned else (aligned, int(aligned / shape))
    scaled = edge, int(edge / shape)
    return scaled if scaled[1] >= aligned else (int(aligned * shape), aligned)


def _ratio(size: Size) -> float:
    return round(size[0] / size[1], _ROUNDING)


def _align(value: float) -> int:
    return max(round(value / ALIGNMENT) * ALIGNMENT, ALIGNMENT)


def _middle(spare: int, era: Era) -> float:
    if era.coordinates == "halves":
        return spare / 2
    if era.true_ratio or era.coordinates == "left-top":
        return spare // 2
    return max(0, int(spare / 2))
