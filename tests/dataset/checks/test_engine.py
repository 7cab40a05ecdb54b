import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.dataset.checks.engine import cores, measure_all
from fluxkit.dataset.checks.measure import Measured, measure, open_regular


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number:02d}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40 + number, 30), (number, 5 * number, 99)).save(path)
    return paths


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_come_in_the_order_of_the_files(pictures: list[Path], workers: int) -> None:
    found = list(measure_all(pictures, workers=workers))
    assert [file.path for file in found] == pictures
    assert [file.measured.width for file in found] == [40 + number for number in range(40)]


def test_files_are_read_only_shortly_before_they_are_needed(pictures: list[Path]) -> None:
    taken = []

    def paths() -> Iterator[Path]:
        for path in pictures:
            taken.append(path)
            yield path

    results = measure_all(paths(), workers=2)
    next(results)
    assert len(taken) <= 2 * 4 + 1, "memory doesn't grow with the folder"
    results.close()  # type: ignore[attr-defined]


def test_stopping_early_leaves_no_thread_behind(pictures: list[Path]) -> None:
    results = measure_all(pictures, workers=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("measure")]


def test_a_file_that_vanishes_is_unreadable(tmp_path: Path) -> None:
    (file,) = measure_all([tmp_path / "gone.png"])
    assert (file.measured.problem, file.measured.detail) == ("unreadable", "No such file or directory")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="pipe"):
        open_regular(tmp_path / "pipe.jpg")


def test_at_least_one_core() -> None:
    assert cores() >= 1


def measured(path: Path) -> Measured:
    with open_regular(path) as handle:
        return measure(handle, None)


@pytest.mark.parametrize("scale", [1, 3, 9])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_measured_is_upright(tmp_path: Path, scale: int, orientation: int) -> None:
    """A white left edge of the upright picture, whatever way it is stored, at every size that JPEGs are decoded at."""
    upright = Image.effect_noise((400 * scale, 300 * scale), 40).convert("RGB")
    upright.paste("white", (0, 0, 40 * scale, 300 * scale))
    upright.paste("white", (360 * scale, 0, 400 * scale, 300 * scale))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=90)
    found = measured(tmp_path / "a.jpg")
    assert (found.width, found.height, found.orientation) == (400 * scale, 300 * scale, orientation)
    left, top, right, bottom = found.border
    assert min(left, right) > 0.05
    assert top == bottom == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_is_measured(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (500, 450)).save(tmp_path / "a.png")
    found = measured(tmp_path / "a.png")
    assert found.problem is None
    assert found.bits == (16 if mode == "I;16" else 8)
    assert (found.transparent == 1) == (mode in ("LA", "RGBA"))


def test_colour_of_sixteen_bits_is_told_from_the_header(tmp_path: Path) -> None:
    from tests.dataset.hostile import png

    (tmp_path / "a.png").write_bytes(png(80, 80, depth=16))
    assert measured(tmp_path / "a.png").bits == 16


@pytest.mark.parametrize(("format_", "quality"), [("JPEG", 61), ("PNG", 0), ("WEBP", 0)])
def test_quality_is_of_jpegs_only(tmp_path: Path, format_: str, quality: int) -> None:
    Image.effect_noise((90, 90), 50).save(tmp_path / "a.x", format_, quality=61)
    assert measured(tmp_path / "a.x").quality == quality
