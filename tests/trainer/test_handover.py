from pathlib import Path

import pytest

from fluxkit.trainer import handover as module
from fluxkit.trainer.handover import describe, handover


def test_what_was_tried_is_said_with_its_day() -> None:
    trial = handover("4.8.0", "4.10.1")
    assert trial is not None
    assert trial.goes_on
    assert trial.seen in describe("4.8.0", "4.10.1")


def test_of_what_was_not_tried_nothing_is_claimed() -> None:
    assert handover("1.2.5", "4.10.1") is None
    assert describe("1.2.5", "4.10.1") == "whether 4.10.1 goes on from checkpoints of 1.2.5 was not tried"


def test_every_trial_is_of_releases_in_the_compatibility_table_or_said_beside_it(project_root: Path) -> None:
    page = (project_root / "docs" / "compatibility.md").read_text()
    for old, new in module._trials():
        assert old in page, old
        assert new in page, new


@pytest.mark.parametrize("reason", ["size mismatch for lokr_w1"])
def test_a_trial_that_failed_says_why(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    failed = module.Handover("3.0.0", "9.0.0", False, "2026-11-24", reason)
    monkeypatch.setattr(module, "_trials", lambda: {("3.0.0", "9.0.0"): failed})
    assert describe("3.0.0", "9.0.0") == f"9.0.0 was seen not to go on from checkpoints of 3.0.0: {reason}"
