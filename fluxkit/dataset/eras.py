"""How SimpleTuner's releases differ in what they make of a picture, as data.

Found by comparing the functions that matter over every tag from 1.2 to 4.8.0 and the 4.10.1 wheel, and by running them
(`scripts/probe_geometry.py`); what 4.8.0 does to real files is tested against the trainer itself.
"""

from dataclasses import dataclass
from typing import Literal

from packaging.version import Version

# OpenCV (4.10 and 4.11 in their locks) turns JPEG and PNG. From 3.0.0 on `trainingsample` reads pictures and turns
# none; up to its 0.2.16 it can't read JPEG and WebP, so that Pillow steps in, and they are turned. Measured with 0.2.6
# to 0.2.16, and with 0.2.17 to 0.3.2.
_READ_BY_OPENCV = frozenset({"JPEG", "MPO", "PNG"})
_READ_BY_PILLOW = frozenset({"JPEG", "MPO", "WEBP"})
_OWN_READER = Version("3.0.0")
_READER_OF_ALL = Version("4.2.3")  # of the day of trainingsample 0.2.17, which its lock then holds
_TRUE_RATIO = Version("3.0.8")
_SNAPPED_AREAS = Version("2.1.3")
_WHOLE_PIXELS = Version("1.3.0")
_LEFT_FIRST = Version("2.2.0")
_TOP_FIRST_AGAIN = Version("4.2.0")
_SUFFIX_ANY_CASE = Version("4.5.0")


@dataclass(frozen=True)
class Era:
    """What one release does.

    Args:
        upright: Pillow's names of the formats that it turns by their EXIF orientation; others are trained as their
            pixels lie in the file: on their side, upside down or mirrored.
        true_ratio: it scales by the picture's own ratio. Before 3.0.8 the ratio was rounded to two places first, a
            picture whose ratio rounded to 1 was not scaled at all before the crop, and neither was one in `pixel` mode.
        snapped_areas: areas within 0.05 of 0.25, 0.5, 1, 2 and 4 megapixels mean the edges 512, 768, 1024, 1536, 2048.
        coordinates: how it writes a crop's corner down: `top, left` with half pixels, in whole ones, or `left, top`.
        any_case: it takes `.JPG` as well as `.jpg` on Linux.
    """

    upright: frozenset[str]
    true_ratio: bool
    snapped_areas: bool
    coordinates: Literal["halves", "top-left", "left-top"]
    any_case: bool


def era_of(release: str) -> Era:
    """The rules of a release.

    Args:
        release: its version, e.g. `4.8.0`; empty means the newest rules.
    """
    version = Version(release or "9999")
    return Era(
        upright=_upright(version),
        true_ratio=version >= _TRUE_RATIO,
        snapped_areas=version >= _SNAPPED_AREAS,
        coordinates=_coordinates(version),
        any_case=version >= _SUFFIX_ANY_CASE,
    )


def _upright(version: Version) -> frozenset[str]:
    if version < _OWN_READER:
        return _READ_BY_OPENCV
    return _READ_BY_PILLOW if version < _READER_OF_ALL else frozenset()


def _coordinates(version: Version) -> Literal["halves", "top-left", "left-top"]:
    if version < _WHOLE_PIXELS:
        return "halves"
    return "left-top" if _LEFT_FIRST <= version < _TOP_FIRST_AGAIN else "top-left"
