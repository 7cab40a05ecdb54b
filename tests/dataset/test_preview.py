import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fluxkit.dataset.buckets import bucket_findings, simulate_buckets
from fluxkit.dataset.eras import era_of
from fluxkit.dataset.geometry import is_large_enough, prepare, trained_edge
from fluxkit.dataset.images import size_findings
from fluxkit.dataset.model import DatasetRules, ImageFacts
from fluxkit.dataset.preview import Pace, _turned, latent_bytes, preview_training
from fluxkit.dataset.previewreport import duration, preview_dict, preview_text

RULES = DatasetRules(trigger="behitek", release="4.8.0", steps=10_000)
RELEASES = ("1.2.5", "2.1.3", "3.1.6", "3.3.4", "4.0.6", "4.8.0", "4.10.1")


def facts(name: str, width: int, height: int, orientation: int = 1) -> ImageFacts:
    return ImageFacts(Path("/photos", name), width, height, "JPEG", orientation)


def test_the_guide_s_settings_in_numbers() -> None:
    preview = preview_training([facts(f"{number}.jpg", 1600, 1067) for number in range(20)], RULES)
    assert preview.steps_per_epoch == 2 * 20 * 1001
    assert preview.epochs == pytest.approx(10_000 / 40_040)
    assert preview.views == 500
    crop = preview.pictures[0].crops[0]
    assert (crop.resolution, crop.bucket, crop.final) == (1024, "1.0", (1024, 1024))
    assert crop.box == (266, 0, 1334, 1067)
    assert crop.scale == pytest.approx(1024 / 1067, abs=0.001)


def test_batches_and_accumulation_make_fewer_steps() -> None:
    rules = replace(RULES, repeats=0, batch_size=6, accumulation=3, resolutions=(512,))
    preview = preview_training([facts(f"{number}.jpg", 600, 600) for number in range(9)], rules)
    assert (preview.batches, preview.steps_per_epoch) == (5, 2)


@pytest.mark.parametrize(("gpus", "steps"), [(1, 6006), (2, 3003), (4, 2002), (6, 1001)])
def test_gpus_share_the_photos_of_an_epoch(gpus: int, steps: int) -> None:
    # Six photos on four GPUs: the first two have two each, and their epoch counts.
    rules = replace(RULES, batch_size=gpus, processes=gpus, resolutions=(512,))
    preview = preview_training([facts(f"{number}.jpg", 600, 600) for number in range(6)], rules)
    assert preview.steps_per_epoch == steps
    assert preview.views == pytest.approx(10_000 * gpus / 6)
    assert preview_dict(preview, Path("/photos"))["gpus"] == gpus
    assert (f"on {gpus} GPUs" in preview_text(preview)) == (gpus > 1)


@pytest.mark.parametrize(
    ("photos", "repeats", "gpus", "code"),
    [(6, 1000, 6, None), (6, 1000, 7, "bucket.gpus"), (6, 0, 2, None), (6, 0, 4, "bucket.batch")],
)
def test_what_is_too_little_for_so_many_gpus(photos: int, repeats: int, gpus: int, code: str | None) -> None:
    rules = replace(RULES, repeats=repeats, batch_size=2 * gpus, processes=gpus, resolutions=(512,))
    buckets = simulate_buckets([facts(f"{number}.jpg", 600, 600) for number in range(photos)], rules)
    assert [finding.code for finding in bucket_findings(Path("/photos"), buckets, rules)] == [code] * (code is not None)


def test_a_small_photo_is_left_out_where_it_is_too_small() -> None:
    preview = preview_training([facts("a.jpg", 900, 1200), facts("b.jpg", 1200, 1200)], RULES)
    assert [picture.left_out for picture in preview.pictures] == [(1024,), ()]
    assert [bucket.images for bucket in preview.buckets] == [1, 2]


def test_no_photos_no_preview() -> None:
    preview = preview_training([], RULES)
    assert (preview.epochs, preview.views, preview_text(preview)) == (0, 0, "")
    assert preview_dict(preview, Path("/photos"))["images"] == []


def test_time_is_known_only_from_a_measured_run() -> None:
    photos = [facts("a.jpg", 1200, 1200)]
    assert "not known yet" in preview_text(preview_training(photos, RULES))
    assert preview_dict(preview_training(photos, RULES), Path("/photos"))["time"] is None
    pace = Pace(1.5, "20261124-001", comparable=False)
    text = preview_text(preview_training(photos, RULES, pace))
    assert "4 h 10 min at 1.50 s a step (measured in run 20261124-001, which had other settings)" in text


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (240, "4 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_of_a_turned_photo_is_where_viewers_show_it(orientation: int) -> None:
    stored = Image.new("L", (40, 24))
    stored.paste(255, (3, 5, 20, 9))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(buffer, "PNG", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(buffer))
    assert _turned((3, 5, 20, 9), (40, 24), orientation) == shown.getbbox()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_photos_are_found_for_releases_that_ignore_the_orientation(orientation: int) -> None:
    photos = [facts("turned.jpg", 1100, 1500, orientation), facts("upright.jpg", 1100, 1500)]
    png = [replace(each, format="PNG") for each in photos]
    webp = [replace(each, format="WEBP") for each in photos]
    every = {"4.8.0": "JPW", "4.2.3": "JPW", "4.0.6": "P", "3.1.6": "P", "2.1.3": "W", "": ""}
    for release, turned in every.items():
        rules = replace(RULES, release=release)
        for kind, those in (("J", photos), ("P", png), ("W", webp)):
            found = list(bucket_findings(Path("/photos"), simulate_buckets(those, rules), rules))
            named = [each.path.name for each in found if each.code == "image.sideways"]
            assert named == ["turned.jpg"] * (kind in turned), (release, kind)
            assert preview_training(those, rules).pictures[0].sideways is (kind in turned)


def test_upper_case_suffixes_are_left_out_before_4_5() -> None:
    photos = [facts("IMG_1.JPG", 1100, 1500), facts("img_2.jpg", 1100, 1500)]
    old = replace(RULES, release="3.3.4")
    found = list(bucket_findings(Path("/photos"), simulate_buckets(photos, old), old))
    assert {(each.code, each.path.name, each.severity) for each in found} == {("bucket.left-out", "IMG_1.JPG", "error")}
    assert list(bucket_findings(Path("/photos"), simulate_buckets(photos, RULES), RULES)) == []


def test_a_resolution_that_the_trainer_changes_is_told_with_two_that_it_keeps() -> None:
    rules = replace(RULES, resolutions=(720,))
    (found,) = bucket_findings(Path("/photos"), simulate_buckets([facts("a.jpg", 900, 900)], rules), rules)
    assert found.code == "bucket.rounded"
    assert "768×768" in found.message
    assert "640 or 768" in found.fix


@given(
    width=st.integers(64, 4200),
    height=st.integers(64, 4200),
    orientation=st.integers(1, 8),
    resolution=st.integers(4, 256).map(lambda number: number * 16),
    release=st.sampled_from(RELEASES),
    suffix=st.sampled_from([".jpg", ".JPG"]),
)
def test_no_photo_disappears_without_an_error(
    width: int, height: int, orientation: int, resolution: int, release: str, suffix: str
) -> None:
    rules = replace(RULES, release=release, resolutions=(resolution,))
    photos = [facts(f"a{suffix}", width, height, orientation), facts("b.jpg", 4224, 4224)]
    (picture, _) = preview_training(photos, rules).pictures
    findings = [
        *size_findings(photos[0], rules),
        *bucket_findings(Path("/photos"), simulate_buckets(photos, rules), rules),
    ]
    errors = [found for found in findings if found.severity == "error" and found.path == photos[0].path]
    if picture.left_out:
        assert errors
    else:
        (crop,) = picture.crops
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


@given(edge=st.integers(1, 64).map(lambda number: number * 64), release=st.sampled_from(RELEASES))
def test_a_square_photo_of_the_trained_size_is_trained_as_it_is(edge: int, release: str) -> None:
    era = era_of(release)
    if trained_edge(edge, era) == edge and is_large_enough((edge, edge), edge):
        made = prepare((edge, edge), edge, era)
        assert made.box((edge, edge)) == (0, 0, edge, edge)
        assert made.final == (edge, edge)


def test_latents_take_what_torch_writes() -> None:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save(torch.zeros(16, 128, 128, dtype=torch.bfloat16), buffer)
    assert len(buffer.getvalue()) == pytest.approx(latent_bytes(1024), rel=0.01)
