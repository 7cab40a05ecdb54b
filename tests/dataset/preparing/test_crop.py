import pytest

from fluxkit.dataset.faces import Face
from fluxkit.dataset.preparing.crop import face_square


def face(left: int, top: int, right: int, bottom: int) -> Face:
    return Face(left, top, right, bottom, 1.0)


@pytest.mark.parametrize(
    ("size", "where", "box"),
    [
        ((300, 100), face(200, 30, 240, 70), (170, 0, 270, 100)),  # in the middle of the square
        ((300, 100), face(0, 0, 30, 30), (0, 0, 100, 100)),  # at the picture's edge
        ((300, 100), face(280, 0, 300, 30), (200, 0, 300, 100)),
        ((100, 300), face(40, 100, 60, 120), (0, 65, 100, 165)),  # above the square's middle
        ((100, 300), face(40, 0, 60, 30), (0, 0, 100, 100)),
    ],
)
def test_the_square_keeps_the_shorter_edge_and_holds_the_face(
    size: tuple[int, int], where: Face, box: tuple[int, int, int, int]
) -> None:
    found = face_square(size, [where])
    assert found == box
    assert found[0] <= where.left
    assert found[1] <= where.top
    assert found[2] >= where.right
    assert found[3] >= where.bottom


def test_faces_that_fit_together_stay_together() -> None:
    assert face_square((300, 100), [face(10, 10, 40, 40), face(70, 10, 100, 40)]) == (5, 0, 105, 100)


def test_of_faces_too_far_apart_the_largest_counts() -> None:
    assert face_square((300, 100), [face(0, 0, 20, 20), face(250, 20, 290, 60)]) == (200, 0, 300, 100)


@pytest.mark.parametrize(("size", "faces"), [((300, 100), []), ((100, 100), [face(0, 0, 20, 20)])])
def test_nothing_to_crop(size: tuple[int, int], faces: list[Face]) -> None:
    assert face_square(size, faces) is None
