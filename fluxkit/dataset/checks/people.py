"""What the faces in the pictures say: none, several, too small, cut by the crop."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fluxkit.dataset.faces import Face
from fluxkit.dataset.model import DatasetRules, Finding, ImageFacts

# Of the square crop's edge: at 1024 pixels a face of 120, in the VAE's latents 15.
SMALLEST = 0.12
# Another face of less than a third of the largest one's width is a passer-by.
_PASSER_BY = 1 / 3
# How much of a face the crop may cut: cascades draw their boxes a little too large.
_CUT = 0.1
MOST_WITHOUT = 0.5


def face_findings(facts: ImageFacts, rules: DatasetRules) -> Iterator[Finding]:
    """One picture's faces, where a detector looked."""
    if facts.faces is None:
        return
    path = facts.path
    if not facts.faces:
        message = "No face was found: turned away, covered, or less than 8% of the picture's longer edge."
        yield Finding("face.none", "info", path, message, "Let it be if it shows the person well, else leave it out.")
        return
    main = facts.faces[0]
    others = [face for face in facts.faces[1:] if _wide(face) >= _PASSER_BY * _wide(main)]
    if others:
        message = f"{len(others) + 1} faces were found: the LoRA would mix them."
        yield Finding("face.several", "warning", path, message, "Crop the picture to the one person.")
    left, top, right, bottom = _crop(facts, rules)
    edge = min(right - left, bottom - top)
    if _wide(main) < SMALLEST * edge:
        message = f"The face is small: {_wide(main)} of {edge} pixels."
        yield Finding("face.small", "warning", path, message, "Crop the picture around the person.")
    across = min(main.right, right) - max(main.left, left)
    down = min(main.bottom, bottom) - max(main.top, top)
    inside = max(0, across) * max(0, down)
    if inside < (1 - _CUT) * _wide(main) * (main.bottom - main.top):
        message = "The square that training cuts out of the middle cuts the face."
        yield Finding("face.cut", "warning", path, message, "Crop the picture to a square around the face.")


def folder_face_findings(folder: Path, images: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Whether most pictures show no face."""
    without = sum(facts.faces == () for facts in images)
    if len(images) >= 5 and without > MOST_WITHOUT * len(images):
        message = f"No face was found in {without} of {len(images)} pictures."
        fix = "Add photos that show the face, large and from the front or the side."
        yield Finding("face.few", "warning", folder, message, fix)


def _crop(facts: ImageFacts, rules: DatasetRules) -> tuple[int, int, int, int]:
    if not rules.centre_crop:
        return 0, 0, facts.width, facts.height
    edge = min(facts.width, facts.height)
    left, top = (facts.width - edge) // 2, (facts.height - edge) // 2
    return left, top, left + edge, top + edge


def _wide(face: Face) -> int:
    return face.right - face.left
