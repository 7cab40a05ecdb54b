"""fluxkit's simulation against what SimpleTuner's own code answered (`scripts/probe_geometry.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from fluxkit.dataset.eras import era_of
from fluxkit.dataset.geometry import BUCKET, prepare

PROBED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "trainer_geometry.json").read_text())
ANSWERS = [(release, group["pictures"]) for group in PROBED for release in group["releases"]]


@pytest.mark.parametrize(("release", "pictures"), ANSWERS, ids=[release for release, _ in ANSWERS])
def test_every_picture_is_cropped_as_the_release_crops_it(release: str, pictures: list[Any]) -> None:
    era = era_of(release)
    for width, height, resolution, rehearsal, (bucket, final, intermediary, coordinates) in pictures:
        made = prepare((width, height), resolution, era, rehearsal=rehearsal)
        simulated = [BUCKET, list(made.final), list(made.intermediary), list(made.coordinates(era))]
        assert simulated == [bucket, final, intermediary, coordinates], (width, height, resolution, rehearsal)


def test_enough_was_probed() -> None:
    assert {"1.2.5", "2.1.3", "3.1.6", "3.3.4", "4.0.6", "4.8.0", "4.10.1"} <= {release for release, _ in ANSWERS}
    assert all(len(pictures) > 100 for _, pictures in ANSWERS)
