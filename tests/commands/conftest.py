"""A project with a stand-in for the trainer, for the tests of what is around a run."""

from tests.commands.test_train import project, trainer

__all__ = ["project", "trainer"]
