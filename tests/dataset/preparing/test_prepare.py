"""The copy as its owner sees it: what is in it, what a second run does, and that nothing of theirs is lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.dataset.faces import Face
from fluxkit.dataset.preparing import prepare as module
from fluxkit.dataset.preparing.manifest import Recipe, digest, load_manifest
from fluxkit.dataset.preparing.prepare import prepare
from fluxkit.dataset.preparing.request import PrepareReport, PrepareRequest
from fluxkit.dataset.preparing.stale import changes
from fluxkit.errors import UserError


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Colours and edges that no other seed has."""
    image = Image.new("RGB", size, (seed * 67 % 256, seed * 151 % 256, seed * 29 % 256))
    width, height = size
    for index in range(3):
        x, y = (seed * 37 + index * 53) % 70 / 100, (seed * 61 + index * 31) % 60 / 100
        box = (int(x * width), int(y * height), int((x + 0.3) * width), int((y + 0.35) * height))
        image.paste((seed * 91 % 256, index * 110, (seed * 13 + index * 80) % 256), box)
    return image


@pytest.fixture
def request_(tmp_path: Path) -> PrepareRequest:
    source = tmp_path / "dataset"
    source.mkdir()
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    picture(1).save(source / "a.jpg", exif=exif, quality=90)
    exif[0x0112] = 6
    picture(2).save(source / "b.JPG", exif=exif)
    picture(3).save(source / "c.png")
    picture(4).convert("CMYK").save(source / "d.tif")
    for name in "abcd":
        (source / f"{name}.txt").write_text(f"behitek picture {name}\n")
    recipe = Recipe()
    return PrepareRequest(source, tmp_path / "prepared", "dataset", recipe, workers=2)


def files(report: PrepareReport) -> dict[str, bytes]:
    found = sorted(path for path in report.folder.rglob("*") if path.is_file())
    return {path.relative_to(report.folder).as_posix(): path.read_bytes() for path in found}


def test_the_copy_is_upright_srgb_and_says_nothing_of_camera_or_place(request_: PrepareRequest) -> None:
    before = {path.name: path.read_bytes() for path in request_.source.iterdir()}
    report = prepare(request_)
    assert list(files(report)) == ["a.jpg", "a.txt", "b.png", "b.txt", "c.png", "c.txt", "d.png", "d.txt"]
    for name in ("a.jpg", "b.png", "c.png", "d.png"):
        assert b"Secret" not in (report.folder / name).read_bytes()
        with Image.open(report.folder / name) as image:
            assert image.mode == "RGB"
            assert not image.getexif()
    with Image.open(report.folder / "a.jpg") as after, Image.open(request_.source / "a.jpg") as original:
        assert after.tobytes() == original.tobytes(), "a JPEG that is upright keeps its compressed data"
    with Image.open(report.folder / "b.png") as turned:
        assert turned.size == (64, 96)
    done = {photo.source: set(photo.done) for photo in report.manifest.photos}
    private = {"metadata", "gps"}
    assert done == {"a.jpg": private, "b.JPG": {*private, "turned"}, "c.png": set(), "d.tif": {"cmyk"}}

    assert {path.name: path.read_bytes() for path in request_.source.iterdir()} == before


def test_the_manifest_maps_each_file_to_its_source(request_: PrepareRequest) -> None:
    from fluxkit.files import sha256_file

    report = prepare(request_)
    document = json.loads((request_.target / "manifest.json").read_text())
    assert len(document["photos"]) == 4
    for photo in document["photos"]:
        assert photo["output"]["sha256"] == sha256_file(report.folder / photo["file"])
        assert photo["original"]["sha256"] == sha256_file(request_.source / photo["source"])
        assert photo["caption"]["sha256"] == sha256_file((report.folder / photo["file"]).with_suffix(".txt"))


def test_a_second_run_writes_nothing(request_: PrepareRequest) -> None:
    prepare(request_)
    before = {path: path.stat().st_mtime_ns for path in request_.target.rglob("*") if path.parent.name == "photos"}
    report = prepare(request_)
    assert (report.made, report.removed, report.edited) == ((), (), ())
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_the_changed_one_is_made_again_and_the_gone_one_goes(request_: PrepareRequest) -> None:
    prepare(request_)
    picture(9).save(request_.source / "c.png")
    (request_.source / "c.txt").write_text("behitek new words\n")
    for suffix in (".tif", ".txt"):
        (request_.source / "d").with_suffix(suffix).unlink()
    report = prepare(request_)
    assert (report.made, report.removed) == (("c.png",), ("d.png", "d.txt"))
    assert files(report)["c.txt"] == b"behitek new words\n"
    assert "d.png" not in files(report)


def test_near_duplicates_leave_the_best_and_say_which(request_: PrepareRequest) -> None:
    picture(3).resize((48, 32)).save(request_.source / "c small.png")
    shutil.copy(request_.source / "a.jpg", request_.source / "z.jpg")
    report = prepare(request_)
    left = {one.source: (one.code, one.instead, one.why) for one in report.manifest.left_out}
    assert left["c small.png"][:2] == ("duplicate", "c.png")
    assert "larger (96×64, not 48×32)" in left["c small.png"][2]
    assert left["z.jpg"] == ("duplicate", "a.jpg", "looks the same as a.jpg, which is the same file")
    kept = prepare(replace(request_, recipe=Recipe(duplicates="keep")))
    assert {"c small.png", "z.jpg"} <= set(files(kept))
    assert set(kept.made) == {"c small.png", "z.jpg"}, "what is there need not be made again"


def test_the_caption_of_a_duplicate_is_not_lost(request_: PrepareRequest) -> None:
    picture(3).resize((48, 32)).save(request_.source / "c-small.png")
    (request_.source / "c.txt").rename(request_.source / "c-small.txt")
    report = prepare(request_)
    assert files(report)["c.txt"] == b"behitek picture c\n"
    assert not changes(report.manifest, request_.source)


@pytest.mark.parametrize("content", [b"", b"<html>", "half"])
def test_what_can_not_be_read_is_left_out_and_the_rest_is_made(request_: PrepareRequest, content: bytes | str) -> None:
    whole = (request_.source / "c.png").read_bytes()
    (request_.source / "c.png").write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    report = prepare(request_)
    assert [(one.source, one.code) for one in report.manifest.left_out] == [("c.png", "unreadable")]
    assert set(files(report)) == {"a.jpg", "a.txt", "b.png", "b.txt", "d.png", "d.txt"}


def test_hand_edited_captions_survive_whatever_happens(request_: PrepareRequest) -> None:
    folder = prepare(request_).folder
    (folder / "a.txt").write_text("behitek my own words")
    (folder / "b.txt").write_text("behitek mine too")
    (request_.source / "b.txt").write_text("behitek changed in the original\n")
    report = prepare(request_)
    assert (folder / "a.txt").read_text() == "behitek my own words"
    assert (folder / "b.txt").read_text() == "behitek mine too"
    assert (report.edited, report.conflicts) == (("a.txt", "b.txt"), ("b.txt",))
    assert prepare(request_).conflicts == (), "told once"
    (folder / "b.txt").unlink()
    prepare(request_)
    assert (folder / "b.txt").read_text() == "behitek changed in the original\n"
    (request_.source / "a.jpg").unlink()
    report = prepare(request_)
    moved = request_.target / "set-aside" / "a.txt"
    assert report.aside == {folder / "a.txt": moved}
    assert moved.read_text() == "behitek my own words"
    assert not (folder / "a.jpg").exists()


def test_a_hand_edited_picture_and_a_stranger_survive_too(request_: PrepareRequest) -> None:
    folder = prepare(request_).folder
    picture(40).save(folder / "c.png")
    mine = (folder / "c.png").read_bytes()
    picture(41).save(folder / "e.png")
    stranger = (folder / "e.png").read_bytes()
    picture(42).save(request_.source / "c.png")
    picture(43).save(request_.source / "e.png")
    report = prepare(request_)
    assert (folder / "c.png").read_bytes() == mine
    assert report.conflicts == ("c.png",)
    assert (request_.target / "set-aside" / "e.png").read_bytes() == stranger
    assert report.made == ("e.png",)


def test_an_edited_picture_changes_the_digest_that_caches_depend_on(request_: PrepareRequest) -> None:
    report = prepare(request_)
    before = digest(request_.target, report.manifest)
    assert digest(request_.target, prepare(request_).manifest) == before
    picture(40).save(report.folder / "c.png")
    assert digest(request_.target, report.manifest) != before


class Stop(BaseException):
    """Stands for a kill: nothing but `finally` runs after it."""


def killed_at_d(monkeypatch: pytest.MonkeyPatch, request: PrepareRequest) -> None:
    """Prepare up to d.tif."""
    converted = module.convert

    def stopping(path: Path, box: object) -> object:
        if path.name == "d.tif":
            raise Stop
        return converted(path, box)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "convert", stopping)
        with pytest.raises(Stop):
            prepare(request)


def test_a_kill_in_the_middle_is_mended_by_the_next_run(
    request_: PrepareRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at_d(monkeypatch, request_)
    assert (request_.target / "journal.jsonl").exists()
    assert load_manifest(request_.target) is None
    (request_.target / "photos" / "a.txt").write_text("behitek written in between")
    report = prepare(request_)
    assert report.made == ("d.png",), "what was finished is not made again"
    assert not (request_.target / "journal.jsonl").exists()
    assert files(report)["a.txt"] == b"behitek written in between"


def test_a_kill_while_another_recipe_is_applied(request_: PrepareRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = files(prepare(request_))

    class Detector:
        name = "test"

        def detect(self, image: Image.Image) -> list[Face]:
            return [Face(0, 0, image.width // 4, image.height // 4, 1.0)]

    cropping = replace(request_, recipe=Recipe(crop="face", face_model="test"), detector=Detector())
    killed_at_d(monkeypatch, cropping)
    back = prepare(request_)
    assert files(back) == first
    assert back.aside == {}
    assert set(prepare(cropping).made) == {"a.png", "b.png", "c.png", "d.png"}


def test_face_crops_are_square_and_without_a_face_the_picture_stays(request_: PrepareRequest) -> None:
    class Detector:
        name = "test"

        def detect(self, image: Image.Image) -> list[Face]:
            return [] if image.height > image.width else [Face(image.width * 3 // 4, 0, image.width, 20, 1.0)]

    report = prepare(replace(request_, recipe=Recipe(crop="face", face_model="test"), detector=Detector()))
    photos = {photo.source: photo for photo in report.manifest.photos}
    assert {name: photo.size for name, photo in photos.items()} == {
        "a.jpg": (64, 64), "b.JPG": (64, 96), "c.png": (64, 64), "d.tif": (64, 64)
    }  # fmt: skip
    assert photos["b.JPG"].notes == ("no-face",)
    with Image.open(report.folder / "c.png") as cropped, Image.open(request_.source / "c.png") as original:
        assert cropped.tobytes() == original.crop((32, 0, 96, 64)).tobytes()


def test_one_stem_two_photos_each_with_the_caption(request_: PrepareRequest) -> None:
    picture(7).save(request_.source / "a.png")
    report = prepare(request_)
    assert files(report)["a.txt"] == files(report)["a-png.txt"] == b"behitek picture a\n"


def test_subfolders_and_odd_names(request_: PrepareRequest) -> None:
    (request_.source / "sub").mkdir()
    picture(8).save(request_.source / "sub" / "new\nline 🦊.png")
    report = prepare(request_)
    assert "sub/new_line 🦊.png" in files(report)
    (request_.source / "sub" / "new\nline 🦊.png").unlink()
    assert not (prepare(request_).folder / "sub").exists()


def test_changes_are_seen_by_size_time_and_contents(request_: PrepareRequest) -> None:
    manifest = prepare(request_).manifest
    assert not changes(manifest, request_.source)
    (request_.source / "c.png").touch()
    assert not changes(manifest, request_.source), "a new time alone is no change"
    (request_.source / "c.txt").write_text("behitek other words")
    picture(12).save(request_.source / "new.png")
    (request_.source / "a.jpg").unlink()
    assert changes(manifest, request_.source).describe() == "1 new, 1 changed, 1 gone"


def test_the_copy_never_lies_in_the_originals(request_: PrepareRequest) -> None:
    with pytest.raises(UserError, match="originals' own folder"):
        prepare(replace(request_, target=request_.source / "prepared"))
    assert not (request_.source / "prepared").exists()
    link = request_.source.with_name("link")
    link.symlink_to(request_.source)
    with pytest.raises(UserError, match="originals' own folder"):
        prepare(replace(request_, target=link / "prepared"))
    with pytest.raises(UserError, match="inside the prepared copy"):
        prepare(replace(request_, target=request_.source.parent))


def test_somebody_elses_folder_is_not_touched(request_: PrepareRequest) -> None:
    request_.target.mkdir()
    (request_.target / "holiday.txt").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        prepare(request_)
    assert [path.name for path in request_.target.iterdir()] == ["holiday.txt"]


def test_no_usable_photo_leaves_an_older_copy_alone(request_: PrepareRequest) -> None:
    before = files(prepare(request_))
    for path in request_.source.iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="None of the 4 photos"):
        prepare(request_)
    assert {path.name: path.read_bytes() for path in (request_.target / "photos").iterdir()} == before
    assert not (request_.target / "journal.jsonl").exists()


def test_a_damaged_and_a_later_manifest_are_refused(request_: PrepareRequest) -> None:
    prepare(request_)
    path = request_.target / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(UserError, match="later fluxkit"):
        prepare(request_)
    path.write_text(text.replace('"photos"', '"fotos"'))
    with pytest.raises(UserError, match="is damaged"):
        prepare(request_)


def test_a_full_disk_is_one_message(request_: PrepareRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        prepare(request_)
    assert not [path for path in request_.target.rglob("*") if path.suffix in (".jpg", ".png")]


def test_iphone_photos_become_pngs_or_say_what_is_missing(
    request_: PrepareRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxkit.dataset.preparing import sources

    assert sources.reads_heic(), "the tests' environment has the extra"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretPhone"
    picture(5).save(request_.source / "IMG_1.HEIC", "HEIF", exif=exif.tobytes())
    with monkeypatch.context() as patch:
        patch.setattr(sources, "reads_heic", lambda: False)
        patch.setitem(Image.OPEN, "HEIF", (lambda _: None, lambda _: False))
        (left,) = prepare(request_).manifest.left_out
    assert (left.source, left.code) == ("IMG_1.HEIC", "unreadable")
    assert "fluxkit[heic]" in left.why
    report = prepare(request_)
    assert report.made == ("IMG_1.png",)
    assert b"Secret" not in files(report)["IMG_1.png"]
    with Image.open(report.folder / "IMG_1.png") as image:
        assert (image.mode, image.size) == ("RGB", (64, 96))


def test_a_real_face_at_the_edge_is_whole_in_its_square(request_: PrepareRequest) -> None:
    from skimage import data

    from fluxkit.dataset.faces import find_face_detector

    detector = find_face_detector()
    assert detector is not None, "the tests' environment has the extra"
    for path in request_.source.iterdir():
        path.unlink()
    wide = Image.new("RGB", (1100, 512), (90, 110, 90))
    wide.paste(Image.fromarray(data.astronaut()), (588, 0))  # her face is around x = 225, y = 110 of her own picture
    wide.save(request_.source / "wide.png")
    report = prepare(replace(request_, recipe=Recipe(crop="face", face_model=detector.name), detector=detector))
    (photo,) = report.manifest.photos
    assert (photo.size, photo.done) == ((512, 512), ("crop",))
    with Image.open(report.folder / photo.file) as square:
        (face, *_) = detector.detect(square)
    assert 100 < (face.left + face.right) / 2 < 412
    assert face.top > 0
