import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from fluxkit.dataset.checks.engine import measure_all
from fluxkit.dataset.checks.gallery import Gallery
from fluxkit.dataset.checks.hashes import group_alike
from fluxkit.dataset.model import Finding
from tests.dataset.checks.photos import NAMES, sample

Draw = Callable[[int], Image.Image]


def findings(folder: Path, pictures: list[Image.Image]) -> list[Finding]:
    paths = []
    for index, picture in enumerate(pictures):
        paths.append(folder / f"{index:02d}.png")
        picture.save(paths[-1])
    gallery = Gallery(expected=len(paths))
    for file in measure_all(paths):
        gallery.add(file)
    return list(gallery.findings(folder))


def codes(found: list[Finding]) -> set[str]:
    return {finding.code for finding in found}


def test_different_photographs_share_nothing(tmp_path: Path) -> None:
    assert findings(tmp_path, [sample(name) for name in NAMES]) == []


def test_a_copy_and_near_copies_are_grouped(tmp_path: Path) -> None:
    photo, other = sample("coffee.png"), sample("chelsea.png")
    smaller = photo.resize((photo.width * 2 // 3, photo.height * 2 // 3))
    brighter = ImageEnhance.Brightness(photo).enhance(1.03)
    found = findings(tmp_path, [photo, other, photo, smaller, brighter])
    by_code = {finding.code: finding for finding in found}
    assert codes(found) == {"image.duplicate", "image.near-duplicate"}
    assert [by_code["image.duplicate"].path.name, *(p.name for p in by_code["image.duplicate"].related)] == [
        "00.png",
        "02.png",
    ]
    assert [path.name for path in by_code["image.near-duplicate"].related] == ["03.png", "04.png"]


def test_the_same_shapes_in_other_colours_are_no_copies(tmp_path: Path) -> None:
    photo = sample("coffee.png")
    assert findings(tmp_path, [photo, Image.merge("RGB", photo.split()[::-1])]) == []


def person(index: int, *, background: tuple[int, int, int], clothes: tuple[int, int, int], still: bool) -> Image.Image:
    """A figure on a backdrop, both with a grain of their own."""
    chance = random.Random(index)
    image = Image.new("RGB", (300, 400), background)
    draw = ImageDraw.Draw(image)
    for _ in range(40):  # things behind, of nearly the backdrop's colour
        x, y = chance.randrange(300), chance.randrange(260)
        draw.rectangle((x, y, x + 8, y + 30), fill=tuple(max(0, level - 12) for level in background))
    across, size = (0, 1.0) if still else (chance.randrange(-45, 45), chance.uniform(0.5, 1.4))
    draw.ellipse((150 + across - 45 * size, 200 - 130 * size, 150 + across + 45 * size, 200), fill=(220, 180, 150))
    draw.rectangle((150 + across - 90 * size, 210, 150 + across + 90 * size, 400), fill=clothes)
    if not still:
        for _ in range(6):  # arms and things in other places
            start = (chance.randrange(300), chance.randrange(400))
            draw.line((start, (chance.randrange(300), chance.randrange(400))), fill=(30, 30, 30), width=12)
    return image


def colour(index: int) -> tuple[int, int, int]:
    chance = random.Random(index * 7 + 1)
    return chance.randrange(256), chance.randrange(256), chance.randrange(256)


SAME = (40, 90, 160)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda i: person(i, background=SAME, clothes=colour(i), still=False), "variety.background"),
        (lambda i: person(i, background=colour(i), clothes=SAME, still=False), "variety.clothes"),
        (lambda i: person(i, background=colour(i), clothes=colour(i + 50), still=True), "variety.pose"),
        (lambda i: person(i, background=colour(i), clothes=colour(i + 50), still=False), None),
    ],
)
def test_what_all_pictures_share_is_told(tmp_path: Path, draw: Draw, expected: str | None) -> None:
    found = findings(tmp_path, [draw(index) for index in range(12)])
    assert {code for code in codes(found) if code.startswith("variety")} == ({expected} if expected else set())
    for finding in found:
        if finding.code == expected:
            assert len(finding.related) > 0.6 * 12


def test_five_pictures_say_nothing_about_variety(tmp_path: Path) -> None:
    found = findings(tmp_path, [person(i, background=SAME, clothes=SAME, still=True) for i in range(5)])
    assert not any(code.startswith("variety") for code in codes(found))


def gray(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 192), dtype=np.uint8)


def test_groups_are_not_chained() -> None:
    """Each differs from the next by 4 bits: the third is too far from the first."""
    hashes = np.array([(1 << 4 * step) - 1 for step in range(4)], dtype=np.uint64)
    assert group_alike(hashes, gray(4)) == [[0, 1], [2, 3]]


def test_some_of_the_pictures_can_be_compared() -> None:
    hashes = np.array([0, 1], dtype=np.uint64)
    assert group_alike(hashes, gray(9), np.array([3, 7])) == [[3, 7]]


def test_twenty_thousand_pictures_are_compared() -> None:
    chance = random.Random(0)
    hashes = np.array([chance.getrandbits(64) for _ in range(20_000)], dtype=np.uint64)
    hashes[19_999] = hashes[5] ^ np.uint64(0b10101)
    assert [5, 19_999] in group_alike(hashes, gray(20_000))
