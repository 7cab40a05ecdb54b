"""A project with a stand-in for the trainer, for the tests of what is around a run."""

import pytest

from tests.commands.test_train import project, trainer

__all__ = ["no_dictionaries", "project", "trainer"]


@pytest.fixture
def no_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the trigger is a word of some language takes a second or two to find out, and is tested elsewhere."""
    monkeypatch.setattr("fluxkit.dataset.trigger.word_languages", lambda _: {})
