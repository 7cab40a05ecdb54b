from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.checks.people import face_findings, folder_face_findings
from fluxkit.dataset.faces import Face, find_face_detector
from fluxkit.dataset.model import DatasetRules, ImageFacts

RULES = DatasetRules(trigger="behitek", resolutions=(256,))


def facts(*faces: tuple[int, int, int, int], size: tuple[int, int] = (1500, 1000)) -> ImageFacts:
    boxes = tuple(Face(*box, 1.0) for box in faces)
    return ImageFacts(Path("a.jpg"), *size, "JPEG", faces=boxes)


@pytest.mark.parametrize(
    ("image", "codes"),
    [
        (facts((600, 300, 900, 600)), []),
        (facts(), ["face.none"]),
        (facts((600, 300, 900, 600), (300, 100, 450, 250)), ["face.several"]),
        (facts((600, 300, 900, 600), (300, 100, 390, 190)), []),  # a passer-by
        (facts((700, 400, 810, 510)), ["face.small"]),
        (facts((100, 300, 400, 600)), ["face.cut"]),
        (facts((215, 300, 525, 600)), ["face.cut"]),  # the crop begins at 250
        (facts((235, 300, 535, 600)), []),  # a twentieth is the detector's own
        (facts((300, 100, 600, 400), size=(1000, 1500)), ["face.cut"]),
        (facts((300, 500, 600, 800), size=(1000, 1500)), []),
    ],
)
def test_faces_of_one_picture(image: ImageFacts, codes: list[str]) -> None:
    assert [finding.code for finding in face_findings(image, RULES)] == codes


def test_another_crop_is_not_judged() -> None:
    rules = DatasetRules(trigger="behitek", centre_crop=False)
    assert list(face_findings(facts((100, 300, 400, 600)), rules)) == []


def test_nothing_is_said_when_nobody_looked() -> None:
    assert list(face_findings(ImageFacts(Path("a.jpg"), 100, 100, "JPEG"), RULES)) == []


def test_most_pictures_without_a_face() -> None:
    images = [facts()] * 4 + [facts((600, 300, 900, 600))] * 3
    (finding,) = folder_face_findings(Path("photos"), images)
    assert (finding.code, finding.severity) == ("face.few", "warning")
    assert "4 of 7" in finding.message
    assert list(folder_face_findings(Path("photos"), images[1:])) == []


def test_real_faces_in_real_files(tmp_path: Path) -> None:
    """A portrait, the same turned by EXIF, two people, and a face that the crop cuts."""
    portrait = Image.fromarray(data.astronaut())
    portrait.save(tmp_path / "one.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.resize((2048, 2048)).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    close = portrait.crop((100, 0, 350, 250))
    two = Image.new("RGB", (500, 270), (90, 120, 90))
    two.paste(close, (0, 10))
    two.paste(close, (250, 10))
    two.resize((1000, 540)).save(tmp_path / "two.png")
    wide = Image.new("RGB", (560, 320), (60, 70, 80))
    wide.paste(close, (0, 40))
    wide.save(tmp_path / "wide.png")
    report = check_dataset(tmp_path, RULES, faces=find_face_detector())
    told = {(f.path.name, f.code) for f in report.findings if f.code.startswith("face")}
    assert told == {("two.png", "face.several"), ("two.png", "face.cut"), ("wide.png", "face.cut")}
    (turned,) = (image for image in report.images if image.path.name == "turned.jpg")
    assert turned.faces is not None
    assert 4 * 150 < turned.faces[0].left < 4 * 224 < turned.faces[0].right < 4 * 300


def test_face_checks_that_were_not_run_say_so_once(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (300, 300), (number, 9, 9)).save(tmp_path / f"{number}.png")
    (missing,) = (f for f in check_dataset(tmp_path, RULES).findings if f.code.startswith("face"))
    assert missing.code == "face.not-run"
    assert "fluxkit[faces]" in missing.fix
    dog = DatasetRules(trigger="behitek", resolutions=(256,), subject="dog")
    (no_person,) = (f for f in check_dataset(tmp_path, dog, faces=find_face_detector()).findings if "face" in f.code)
    assert '"dog"' in no_person.message
