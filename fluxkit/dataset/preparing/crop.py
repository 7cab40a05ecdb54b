"""The square around a face: as large as the picture allows, moved so that the face is whole and near the middle."""

from collections.abc import Sequence

from fluxkit.dataset.faces import Face

# A portrait's eyes lie above its middle: the face's centre goes to 45% of the square's height.
_FACE_HEIGHT = 0.45

Box = tuple[int, int, int, int]


def face_square(size: tuple[int, int], faces: Sequence[Face]) -> Box | None:
    """The crop for a picture with faces in it.

    The square's edge is the picture's shorter edge, so no resolution is lost; only its place is chosen. Several faces
    are kept together where the square holds them all, else the largest one counts.

    Args:
        size: width and height of the upright picture, in pixels.
        faces: what the detector found in it.

    Returns:
        left, top, right, bottom in pixels; None without a face, or when the picture is square already.
    """
    width, height = size
    edge = min(size)
    if not faces or width == height:
        return None
    left, top, right, bottom = _wanted(faces, edge)
    x = _clamp((left + right) / 2 - edge / 2, width - edge)
    y = _clamp((top + bottom) / 2 - edge * _FACE_HEIGHT, height - edge)
    return x, y, x + edge, y + edge


def _wanted(faces: Sequence[Face], edge: int) -> Box:
    """The box around all faces, or around the largest when they don't fit together."""
    together = (
        min(face.left for face in faces),
        min(face.top for face in faces),
        max(face.right for face in faces),
        max(face.bottom for face in faces),
    )
    if together[2] - together[0] <= edge and together[3] - together[1] <= edge:
        return together
    largest = max(faces, key=lambda face: (face.right - face.left) * (face.bottom - face.top))
    return largest.left, largest.top, largest.right, largest.bottom


def _clamp(value: float, highest: int) -> int:
    return max(0, min(highest, round(value)))
