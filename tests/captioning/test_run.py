from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.captioning.run import Captioned, Description, caption_pictures
from fluxkit.captioning.store import CaptionStore
from fluxkit.errors import GpuMemoryError


class Says:
    """A model that names the picture's colour, and runs out of memory above `fits` pictures."""

    def __init__(self, fits: int = 99, words: dict[tuple[int, int, int], str] | None = None) -> None:
        self.fits, self.words = fits, words or {}
        self.batches: list[int] = []

    def describe(self, images: Sequence[Image.Image]) -> list[Description] | None:
        self.batches.append(len(images))
        if len(images) > self.fits:
            return None
        colours = [image.getpixel((0, 0)) for image in images]
        return [Description(self.words.get(colour, f"a man, {colour[0]}")) for colour in colours]  # type: ignore[index,call-overload]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(path)
    return paths


def run(pictures: list[Path], model: Says, batch_size: int = 2) -> list[Captioned]:
    store = CaptionStore.open(pictures[0].parent, pictures[0].parent / "record.json")

    def load(path: Path) -> Image.Image:
        return Image.open(path).convert("RGB")

    return list(
        caption_pictures(pictures, model, store, load=load, trigger="behitek", model_key="m", batch_size=batch_size)
    )


def test_each_picture_gets_its_own_caption_in_order(pictures: list[Path]) -> None:
    model = Says()
    results = run(pictures, model)
    assert model.batches == [2, 2, 1]
    assert [result.picture for result in results] == pictures
    assert [path.with_suffix(".txt").read_text() for path in pictures] == [f"behitek a man, {n}\n" for n in range(5)]


@pytest.mark.parametrize(("fits", "batches"), [(1, [4, 2, 1, 1, 1, 1, 1]), (2, [4, 2, 2, 1]), (4, [4, 1])])
def test_out_of_memory_halves_the_batch_for_the_rest_too(pictures: list[Path], fits: int, batches: list[int]) -> None:
    model = Says(fits)
    assert [result.status for result in run(pictures, model, batch_size=4)] == ["made"] * 5
    assert model.batches == batches


def test_when_not_even_one_fits_it_says_so(pictures: list[Path]) -> None:
    with pytest.raises(GpuMemoryError, match="one picture at a time") as caught:
        run(pictures, Says(fits=0))
    assert caught.value.exit_code == 5


def test_a_bad_picture_in_the_middle_stops_nothing(pictures: list[Path]) -> None:
    pictures[2].write_bytes(pictures[2].read_bytes()[:40])
    results = run(pictures, Says(), batch_size=3)
    by_name = {result.picture.name: result.status for result in results}
    assert by_name == {"0.png": "made", "1.png": "made", "2.png": "failed", "3.png": "made", "4.png": "made"}
    assert not pictures[2].with_suffix(".txt").exists()


def test_nothing_usable_said_is_reported_and_not_written(pictures: list[Path]) -> None:
    pictures[3].with_suffix(".txt").write_text("behitek the old one")
    results = run(pictures, Says(words={(1, 0, 0): "\x00\n", (2, 0, 0): "a\r\nman\x1b]0;x\x07", (3, 0, 0): ""}))
    assert [result.status for result in results] == ["made", "failed", "made", "failed", "made"]
    assert not pictures[1].with_suffix(".txt").exists()
    assert pictures[2].with_suffix(".txt").read_bytes() == b"behitek a man ]0;x\n"
    assert pictures[3].with_suffix(".txt").read_text() == "behitek the old one"


def test_a_folder_in_the_caption_s_place_is_reported(pictures: list[Path]) -> None:
    pictures[0].with_suffix(".txt").mkdir()
    results = run(pictures, Says())
    assert (results[0].status, results[0].why) == ("failed", "0.txt is in the way: it is no file")
    assert [result.status for result in results[1:]] == ["made"] * 4
