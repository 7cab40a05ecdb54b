import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fluxkit.dataset.checks import pixels
from fluxkit.dataset.checks.quality import BLOCKY, BRIGHTEST, CLIPPED, DARKEST, NARROWEST_BORDER, SHARP_ENOUGH, TEXT
from tests.dataset.checks.photos import NAMES, sample


def gray(image: Image.Image) -> pixels.Gray:
    return np.asarray(image.convert("L"))


def saved(image: Image.Image, **options: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return Image.open(buffer)


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_photograph_is_blurred_blocky_written_on_or_framed(name: str) -> None:
    image = sample(name)
    assert pixels.sharpness(gray(image)) > SHARP_ENOUGH + 0.1
    assert pixels.blockiness(gray(image), 8) < BLOCKY - 0.1
    assert pixels.text_share(gray(image)) < TEXT
    assert max(pixels.border(gray(image))) < NARROWEST_BORDER


@pytest.mark.parametrize("name", NAMES)
def test_every_blurred_photograph_is_found(name: str) -> None:
    """A radius of 3 pixels at 384 is 8 in a square of 1024."""
    assert pixels.sharpness(gray(sample(name).filter(ImageFilter.GaussianBlur(3)))) < SHARP_ENOUGH


def test_a_blurred_background_is_no_fault() -> None:
    portrait = sample("astronaut.png")
    soft = portrait.filter(ImageFilter.GaussianBlur(5))
    soft.paste(portrait.crop((100, 30, 250, 200)), (100, 30))
    assert pixels.sharpness(gray(soft)) > SHARP_ENOUGH


def test_scaling_up_shows_as_blur() -> None:
    image = sample("chelsea.png")
    tiny = image.resize((image.width // 6, image.height // 6)).resize(image.size, Image.Resampling.BICUBIC)
    assert pixels.sharpness(gray(tiny)) < SHARP_ENOUGH


@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png", "camera.png", "rocket.jpg", "retina.jpg"])
@pytest.mark.parametrize("shift", [0, 3])
def test_blocks_are_found_after_saving_again(name: str, shift: int) -> None:
    again = saved(saved(sample(name), quality=25).convert("RGB"), quality=98)
    assert pixels.blockiness(gray(again.crop((shift, shift, *again.size))), 8) >= BLOCKY


@pytest.mark.parametrize("quality", [10, 20, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    tables = saved(sample("chelsea.png"), quality=quality).quantization  # type: ignore[attr-defined]
    assert abs(pixels.jpeg_quality(tables[0]) - quality) <= 1


@pytest.mark.parametrize(("size", "fill"), [(14, "white"), (20, "white"), (24, "black"), (30, "yellow")])
def test_text_is_found(size: int, fill: str) -> None:
    image = sample("chelsea.png").copy()
    place = (12, image.height - 2 * size)
    ImageDraw.Draw(image).text(place, "© Someone 2024-05-17 12:30", fill=fill, font=ImageFont.load_default(size))
    assert pixels.text_share(gray(image)) >= TEXT


@pytest.mark.parametrize("colour", ["black", "white", (200, 30, 30)])
def test_bars_on_two_sides_are_a_border(colour: str | tuple[int, int, int]) -> None:
    photo = sample("coffee.png")
    framed = Image.new("RGB", (photo.width, photo.height + 80), colour)
    framed.paste(photo, (0, 40))
    left, top, right, bottom = pixels.border(gray(framed))
    assert top == pytest.approx(40 / framed.height, abs=0.01)
    assert bottom == pytest.approx(40 / framed.height, abs=0.01)
    assert (left, right) == (0, 0)


def test_a_border_survives_jpeg() -> None:
    photo = sample("rocket.jpg")
    framed = Image.new("RGB", (photo.width + 60, photo.height))
    framed.paste(photo, (30, 0))
    left, _, right, _ = pixels.border(gray(saved(framed, quality=85)))
    assert min(left, right) >= NARROWEST_BORDER


def test_a_gradient_and_a_studio_backdrop_are_no_border() -> None:
    assert max(pixels.border(gray(Image.linear_gradient("L")))) == 0
    studio = Image.new("RGB", (300, 400), "white")
    ImageDraw.Draw(studio).ellipse((100, 100, 200, 260), fill=(120, 80, 60))
    assert max(pixels.border(gray(studio))) == 0


def test_exposure() -> None:
    image = gray(sample("chelsea.png"))
    mean, black, white = pixels.exposure(image)
    assert DARKEST < mean < BRIGHTEST
    assert max(black, white) < CLIPPED
    assert pixels.exposure(image // 8)[0] < DARKEST
    assert pixels.exposure(np.minimum(image.astype(int) * 4, 255).astype(np.uint8))[2] > CLIPPED
    assert pixels.exposure(np.zeros((0, 0), dtype=np.uint8)) == (128.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 4096), (4096, 1), (2, 2), (65, 63)])
def test_the_smallest_pictures_measure_too(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (9, 99, 199))
    for value in (pixels.sharpness(gray(image)), pixels.blockiness(gray(image), 8), pixels.text_share(gray(image))):
        assert np.isfinite(value)
    assert pixels.border(gray(image)) == (0, 0, 0, 0)
