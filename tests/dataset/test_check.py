import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.model import DatasetReport, DatasetRules, Finding
from fluxkit.dataset.report import report_dict, report_text

RULES = DatasetRules(trigger="behitek", resolutions=(64, 32))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_demo_dataset(folder, "behitek", "man", count=20, size=64)
    return folder


def codes(report: DatasetReport) -> set[str]:
    return {finding.code for finding in report.findings}


def noticed(report: DatasetReport) -> tuple[Finding, ...]:
    """What isn't about the drawn pictures repeating themselves, or about what this test leaves out."""
    expected = {"image.near-duplicate", "face.not-run", "caption.tokens-not-run"}
    return tuple(finding for finding in report.findings if finding.code not in expected)


def the(report: DatasetReport, code: str) -> Finding:
    found = [finding for finding in report.findings if finding.code == code]
    assert len(found) == 1, report.findings
    return found[0]


def test_a_good_dataset_has_no_findings(photos: Path) -> None:
    report = check_dataset(photos, RULES)
    assert noticed(report) == ()
    assert report.ok
    assert len(report.images) == 20


@pytest.mark.parametrize(("kind", "code"), [("missing", "missing"), ("file", "not-a-folder"), ("empty", "empty")])
def test_no_folder_of_photos(tmp_path: Path, kind: str, code: str) -> None:
    folder = tmp_path / "photos"
    if kind == "file":
        folder.write_text("")
    if kind == "empty":
        folder.mkdir()
    report = check_dataset(folder, RULES)
    assert not report.ok
    assert the(report, f"dataset.{code}").fix


@pytest.mark.parametrize(("count", "severity"), [(4, "error"), (5, "warning"), (19, "warning"), (20, None)])
def test_five_are_the_least_and_twenty_recommended(tmp_path: Path, count: int, severity: str | None) -> None:
    make_demo_dataset(tmp_path, "behitek", "man", count=count, size=64)
    found = [finding.severity for finding in noticed(check_dataset(tmp_path, RULES))]
    assert found == ([severity] if severity else [])


def test_broken_pictures(photos: Path) -> None:
    (photos / "demo-01.png").write_bytes(b"")
    whole = (photos / "demo-02.png").read_bytes()
    (photos / "demo-02.png").write_bytes(whole[: len(whole) // 2])
    (photos / "demo-03.png").write_bytes(b"<html>not found</html>")
    Image.open(photos / "demo-04.png").save(photos / "jpeg.jpg", quality=95)
    (photos / "demo-04.png").write_bytes((photos / "jpeg.jpg").read_bytes())
    (photos / "jpeg.jpg").unlink()
    report = check_dataset(photos, RULES)
    assert the(report, "image.empty").path.name == "demo-01.png"
    assert {f.path.name for f in report.findings if f.code == "image.unreadable"} == {"demo-02.png", "demo-03.png"}
    assert the(report, "image.mislabelled").fix == 'Rename it to "demo-04.jpg".'
    assert "caption.orphan" not in codes(report), "a broken photo still owns its caption"
    assert all(f.severity == "error" for f in noticed(report) if f.code.startswith("image."))


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "PNG"])
def test_truncation_is_seen_behind_the_header(photos: Path, format_: str) -> None:
    path = photos / f"demo-99.{format_.lower()}"
    Image.effect_noise((64, 64), 90).convert("RGB").save(path, format=format_)
    path.write_bytes(path.read_bytes()[:-200])
    path.with_suffix(".txt").write_text("behitek")
    assert the(check_dataset(photos, RULES), "image.unreadable").path == path


def test_decompression_bomb(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 3)
    report = check_dataset(photos, RULES)
    assert codes(report) >= {"image.too-large"}
    assert report.images == ()


def test_an_image_too_small_for_one_resolution_is_an_error(photos: Path) -> None:
    Image.new("RGB", (200, 40)).save(photos / "demo-07.png")
    report = check_dataset(photos, RULES)
    finding = the(report, "image.too-small")
    assert finding.path.name == "demo-07.png"
    assert "200×40 is too small for 64:" in finding.message
    assert not report.ok


def test_no_image_large_enough_for_a_resolution(photos: Path) -> None:
    report = check_dataset(photos, replace(RULES, resolutions=(128, 64)))
    assert "128×128" in the(report, "bucket.empty").message


def test_a_bucket_that_fills_no_batch(photos: Path) -> None:
    rules = replace(RULES, repeats=0, resolutions=(64,), batch_size=21)
    assert "20 samples" in the(check_dataset(photos, rules), "bucket.batch").message
    assert check_dataset(photos, replace(rules, repeats=1)).ok


def test_exif_orientation_is_told(photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 64)).save(photos / "demo-01.png", exif=exif)
    report = check_dataset(photos, RULES)
    assert the(report, "image.orientation").severity == "info"
    assert report.ok
    facts = next(facts for facts in report.images if facts.path.name == "demo-01.png")
    assert (facts.width, facts.height) == (64, 80)


def test_upper_case_suffix(photos: Path) -> None:
    (photos / "demo-01.png").rename(photos / "demo-01.PNG")
    assert the(check_dataset(photos, RULES), "image.upper-case").fix == 'Rename it to "demo-01.png".'


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "clip.mov", "a.tga", "b.bmp", "voice.m4a"])
def test_other_media_are_errors_some_releases_take_them_and_some_do_not(photos: Path, name: str) -> None:
    (photos / name).write_bytes(b"x")
    assert the(check_dataset(photos, RULES), "image.format").severity == "error"


@pytest.mark.parametrize("name", ["notes.md", ".DS_Store", "aspect_ratio_bucket_indices_x.json"])
def test_what_is_no_media_is_no_matter(photos: Path, name: str) -> None:
    (photos / name).write_bytes(b"x")
    assert noticed(check_dataset(photos, RULES)) == ()


def test_folders_that_the_trainer_passes_over_hold_no_photos(photos: Path) -> None:
    (photos / ".ipynb_checkpoints").mkdir()
    shutil.copy(photos / "demo-01.png", photos / ".ipynb_checkpoints")
    report = check_dataset(photos, RULES)
    assert noticed(report) == ()
    assert len(report.images) == 20


def test_a_broken_link_is_unreadable(photos: Path) -> None:
    (photos / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "gone.txt").write_text("behitek")
    assert the(check_dataset(photos, RULES), "image.unreadable").path.name == "gone.jpg"


@pytest.mark.parametrize(
    ("content", "code", "severity"),
    [
        (None, "missing", "error"),
        (b"", "empty", "error"),
        (b" \n\r\n", "empty", "error"),
        ("behitek café".encode("latin-1"), "not-utf8", "error"),
        ("behitek a man".encode("utf-16"), "not-utf8", "error"),
        (b"\xef\xbb\xbfbehitek a man", "bom", "error"),
        (b"a man", "no-trigger", "error"),
        (b"behitekian man", "no-trigger", "error"),
        (b"Behitek a man", "no-trigger", "error"),
        (b"behitek a man\n\nbehitek on a chair\n", "several-lines", "warning"),
        (b"behitek a man\n \n", "blank-line", "error"),
    ],
)
def test_bad_captions(photos: Path, content: bytes | None, code: str, severity: str) -> None:
    caption = photos / "demo-05.txt"
    if content is None:
        caption.unlink()
    else:
        caption.write_bytes(content)
    finding = the(check_dataset(photos, RULES), f"caption.{code}")
    assert finding.severity == severity
    assert finding.path.stem == "demo-05"
    assert finding.fix


@pytest.mark.parametrize("text", ["behitek", "behitek, a man\r\n", "behitek 写真 😀 {{ x }}"])
def test_good_captions(photos: Path, text: str) -> None:
    (photos / "demo-05.txt").write_bytes(text.encode())
    report = check_dataset(photos, RULES)
    assert not [finding for finding in report.findings if finding.code.startswith("caption.no")]
    assert report.ok


def test_orphans_and_upper_case_captions(photos: Path) -> None:
    (photos / "nobody.txt").write_text("behitek")
    (photos / "demo-03.txt").rename(photos / "demo-03.TXT")
    report = check_dataset(photos, RULES)
    assert the(report, "caption.orphan").path.name == "nobody.txt"
    assert the(report, "caption.missing").fix == 'Rename it to "demo-03.txt".'


def test_same_stem_twice(photos: Path) -> None:
    Image.new("RGB", (64, 64)).save(photos / "demo-01.jpg")
    assert "demo-01.jpg, demo-01.png" in the(check_dataset(photos, RULES), "image.same-stem").message


def test_without_captions(photos: Path) -> None:
    for caption in photos.glob("*.txt"):
        caption.unlink()
    assert noticed(check_dataset(photos, replace(RULES, captions="trigger"))) == ()
    assert len(check_dataset(photos, RULES).of("error")) == 20


def test_link_loops_and_unicode_names(photos: Path) -> None:
    shutil.copy(photos / "demo-01.png", photos / "Zoë 写真 😀.png")
    shutil.copy(photos / "demo-01.txt", photos / "Zoë 写真 😀.txt")
    (photos / "loop").symlink_to(photos)
    report = check_dataset(photos, RULES)
    assert len(report.images) == 21
    assert {finding.code for finding in noticed(report)} == {"dataset.linked-folder", "image.duplicate"}


def test_subfolders_count(photos: Path) -> None:
    (photos / "beach").mkdir()
    for name in ("demo-01.png", "demo-01.txt"):
        (photos / name).rename(photos / "beach" / name)
    assert noticed(check_dataset(photos, RULES)) == ()


def test_all_findings_at_once_in_both_reports(photos: Path) -> None:
    (photos / "demo-01.txt").unlink()
    (photos / "demo-02.png").write_bytes(b"")
    Image.new("RGB", (10, 10)).save(photos / "demo-03.png")
    report = check_dataset(photos, replace(RULES, trigger="flower"))
    assert codes(report) >= {"caption.missing", "image.empty", "image.too-small", "trigger.dictionary"}
    text = report_text(report)
    data = report_dict(report)
    assert data["ok"] is False
    for finding in report.findings:
        assert finding.message in text
        assert finding.fix in text
    assert {found["code"] for found in data["findings"]} == codes(report)
    assert "demo-02.png" in text


def test_the_demo_pictures_are_distinct_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_demo_dataset(tmp_path / name, "behitek", "man", size=64)
    first = [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())]
    assert first == [path.read_bytes() for path in sorted((tmp_path / "b").iterdir())]
    assert len(set(first)) == len(first) == 12
