import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.dataset.faces import Face, find_face_detector
from fluxkit.errors import UserError
from tests.dataset.yunet import write_red_detector

# A real face: NASA's portrait of Eileen Collins (public domain), shipped in scikit-image's wheel; her face is at about
# (175, 65)-(275, 165) of 512 × 512.
FACE_CENTRE = (224, 115)


def _portrait() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut())


def _holds(face: Face, x: float, y: float) -> bool:
    return face.left < x < face.right and face.top < y < face.bottom


@pytest.mark.parametrize("scale", [0.5, 1, 4])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_a_face_is_found_at_its_place(scale: float, mode: str) -> None:
    image = _portrait()
    image = image.resize((round(image.width * scale), round(image.height * scale))).convert(mode)
    detector = find_face_detector()
    assert detector is not None
    (face,) = detector.detect(image)
    assert _holds(face, FACE_CENTRE[0] * scale, FACE_CENTRE[1] * scale)
    assert 70 * scale < face.right - face.left < 140 * scale


def test_two_faces_the_larger_first() -> None:
    portrait = _portrait().crop((100, 0, 350, 250)).resize((330, 330))
    image = Image.new("RGB", (900, 500), (90, 120, 90))
    image.paste(portrait, (20, 60))
    image.paste(portrait.resize((400, 400)), (450, 50))
    detector = find_face_detector()
    assert detector is not None
    first, second = detector.detect(image)
    assert first.left > 450 > second.right


def test_no_face_in_noise_and_in_flat_colour() -> None:
    detector = find_face_detector()
    assert detector is not None
    assert detector.detect(Image.effect_noise((400, 300), 60)) == []
    assert detector.detect(Image.new("RGB", (640, 480), (200, 180, 160))) == []
    assert detector.detect(Image.new("RGB", (1, 1))) == []


def test_without_opencv_there_is_no_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert find_face_detector() is None


@pytest.mark.parametrize("content", [None, b"", b"not onnx"])
def test_a_model_that_is_none_is_one_message(tmp_path: Path, content: bytes | None) -> None:
    model = tmp_path / "yunet.onnx"
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(UserError, match=r"yunet\.onnx") as raised:
        find_face_detector(model)
    assert "face_model" in raised.value.fix


@pytest.mark.parametrize("scale", [1, 3])
def test_a_named_yunet_model_is_used(tmp_path: Path, scale: int) -> None:
    """The network is a stand-in, OpenCV's decoding of it real: the order of colours, boxes in the picture's pixels."""
    write_red_detector(tmp_path / "yunet.onnx")
    image = Image.new("RGB", (640, 320))
    image.paste((255, 0, 0), (64, 96, 96, 128))
    image.paste((0, 0, 255), (320, 96, 352, 128))
    detector = find_face_detector(tmp_path / "yunet.onnx")
    assert detector is not None
    assert detector.name.startswith("yunet-")
    (face,) = detector.detect(image.resize((640 * scale, 320 * scale), Image.Resampling.NEAREST))
    # A box of 32 pixels around the cell's corner.
    assert (face.left, face.top, face.right, face.bottom) == tuple(edge * scale for edge in (48, 80, 80, 112))
    assert face.score > 0.9


def test_another_model_has_another_name(tmp_path: Path) -> None:
    write_red_detector(tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    (tmp_path / "b.onnx").write_bytes(content.replace(b"red", b"RED"))
    names = {detector.name for model in "ab" if (detector := find_face_detector(tmp_path / f"{model}.onnx"))}
    assert len(names) == 2, "results are remembered by the name"
