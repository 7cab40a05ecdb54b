"""Faces in a picture: OpenCV's bundled Haar cascades, or a YuNet network that the user names.

The only module that imports OpenCV (the optional extra `fluxkit[faces]`). Both detectors look at a small copy of the
picture; a face narrower than about 8% of the longer edge is not found, and is too small to learn a likeness from.
Cascades find further faces beside a large one from 12% on, and profiles from 16%.
"""

import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fluxkit.errors import UserError
from fluxkit.files import sha256_file

if TYPE_CHECKING:
    from PIL import Image

_FRONTAL, _PROFILE = "haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml"
# What is searched for, in a copy of which longer edge in pixels, with how many neighbouring hits, mirrored or not:
# large faces, small ones, profiles.
_LOOKS = ((_FRONTAL, 160, 2, False), (_FRONTAL, 240, 2, False), (_PROFILE, 128, 4, False), (_PROFILE, 128, 4, True))
_NARROWEST = 20  # in pixels of that copy; also what the cascades were trained at
_YUNET_EDGE = 640
# The scale step and the neighbours were found by trial on one face in many sizes and on 14 sample photographs without
# any: every face of 20 pixels is found and nothing else. OpenCV's defaults (1.1 and 3) take a third longer.
_SCALE_STEP = 1.15
_YUNET_SCORE = 0.7
_Box = tuple[float, float, float, float, float]  # left, top, width, height, score
INSTALL = "Install the extra: pip install 'fluxkit[faces]', then run `fluxkit validate` again."


@dataclass(frozen=True)
class Face:
    """A face's box, in pixels of the upright picture.

    Args:
        left: of the box.
        top: of the box.
        right: of the box, exclusive.
        bottom: of the box, exclusive.
        score: the detector's own, higher is surer: 0 to 1 for YuNet, about 1 to 120 for a cascade.
    """

    left: int
    top: int
    right: int
    bottom: int
    score: float


class FaceDetector(Protocol):
    """Finds the faces of a picture; may be used from several threads."""

    name: str

    def detect(self, image: "Image.Image") -> list[Face]:
        """The faces of an upright picture of any size and mode, the largest first."""
        ...


def find_face_detector(model: Path | None = None) -> FaceDetector | None:
    """The detector that this machine can run.

    Args:
        model: a YuNet ONNX file (`face_detection_yunet_2023mar.onnx` of OpenCV's model zoo); None takes the cascades.

    Returns:
        None where OpenCV is not installed, or is one without cascades (version 5) and no model is named.

    Raises:
        UserError: the named model is missing, or OpenCV can't read it.
    """
    if importlib.util.find_spec("cv2") is None:
        return None
    if model is not None:
        return _YuNet(model)
    folder = _cascades()
    return _Haar(folder) if folder else None


def _cascades() -> Path | None:
    import cv2

    data = getattr(cv2, "data", None)
    folder = Path(data.haarcascades) if data is not None else None
    return folder if folder and (folder / _FRONTAL).is_file() else None


class _PerThread(threading.local):
    """OpenCV's detectors keep state while they search: each thread has its own."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}


class _Haar:
    """Frontal faces; where there is none, profiles of either side."""

    name = "haar"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = _PerThread()

    def detect(self, image: "Image.Image") -> list[Face]:
        gray = image.convert("L")
        # From cheap to dear: most portraits are done after the first look.
        for name, edge, neighbours, mirrored in _LOOKS:
            small, scale = _small(gray, edge)
            found = self._search(name, small, neighbours, mirrored=mirrored)
            if found:
                return _faces(found, scale, image.size)
        return []

    def _search(self, name: str, small: "Image.Image", neighbours: int, *, mirrored: bool) -> list[_Box]:
        import numpy as np

        gray = np.asarray(small)
        if mirrored:
            gray = np.ascontiguousarray(gray[:, ::-1])
        cascade = self._own.loaded.get(name)
        if cascade is None:
            cascade = self._own.loaded[name] = _cv2().CascadeClassifier(str(self._folder / name))
        boxes, _, weights = cascade.detectMultiScale3(
            gray, _SCALE_STEP, neighbours, minSize=(_NARROWEST, _NARROWEST), outputRejectLevels=True
        )
        found = []
        for (left, top, wide, high), score in zip(boxes, weights, strict=True):
            start = small.width - left - wide if mirrored else left
            found.append((float(start), float(top), float(wide), float(high), float(score)))
        return found


class _YuNet:
    """YuNet (Wu et al. 2023, https://doi.org/10.1007/s11633-023-1423-y) through OpenCV's `FaceDetectorYN`."""

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise UserError(f"There is no face model {model}.", fix="Correct [dataset] face_model in fluxkit.toml.")
        # Results are remembered by the detector's name: another model is another detector.
        self.name = f"yunet-{sha256_file(model)[:12]}"
        self._model = model
        self._own = _PerThread()
        self._network()

    def detect(self, image: "Image.Image") -> list[Face]:
        import numpy as np

        small, scale = _small(image.convert("RGB"), _YUNET_EDGE)
        network = self._network()
        network.setInputSize(small.size)
        _, rows = network.detect(np.ascontiguousarray(np.asarray(small)[:, :, ::-1]))
        rows = [] if rows is None else rows.tolist()
        return _faces([(row[0], row[1], row[2], row[3], row[14]) for row in rows], scale, image.size)

    def _network(self) -> Any:
        network = self._own.loaded.get("")
        if network is None:
            cv2 = _cv2()
            try:
                network = cv2.FaceDetectorYN.create(str(self._model), "", (64, 64), _YUNET_SCORE)
            except cv2.error as error:
                raise UserError(
                    f"{self._model} is no YuNet model that OpenCV {cv2.__version__} can read.",
                    fix="Use face_detection_yunet_2023mar.onnx of OpenCV's model zoo, or leave face_model out.",
                ) from error
            self._own.loaded[""] = network
        return network


def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(1)  # the pictures are spread over the cores already
    return cv2


def _small(image: "Image.Image", edge: int) -> tuple["Image.Image", float]:
    """The picture scaled down to `edge`, and how many of its pixels one pixel of that stands for."""
    from PIL import Image

    scale = max(image.size) / edge
    if scale <= 1:
        return image, 1.0
    size = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5), scale


def _faces(boxes: list[_Box], scale: float, size: tuple[int, int]) -> list[Face]:
    faces = []
    for left, top, wide, high, score in boxes:
        right, bottom = min(round((left + wide) * scale), size[0]), min(round((top + high) * scale), size[1])
        faces.append(Face(max(0, round(left * scale)), max(0, round(top * scale)), right, bottom, round(score, 3)))
    return sorted(faces, key=lambda face: (face.left - face.right) * (face.bottom - face.top))
