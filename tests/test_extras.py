import importlib.util
from pathlib import Path

import pytest

from fluxkit import extras
from fluxkit.commands import sample, train, upgrade
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import UserError
from tests.projects import start_project


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> object:
        return None if name == "torch" else importlib.util.find_spec(name)

    monkeypatch.setattr(extras, "find_spec", find)


@pytest.mark.usefixtures("without_torch")
def test_every_verb_that_needs_the_sampling_extra_says_how_to_get_it(tmp_path: Path) -> None:
    make_demo_dataset(tmp_path / "dataset", "behitek", "man")
    quiet = Output(verbosity=-1)
    start_project(tmp_path)
    verbs = [
        lambda: sample.sample(tmp_path, out=quiet),
        lambda: train.train(tmp_path, rehearse=True, dry_run=False, fresh=False, option=(), out=quiet),
        lambda: upgrade.upgrade(tmp_path, version=None, dry_run=False, skip_rehearsal=False, out=quiet),
    ]
    for verb in verbs:
        with pytest.raises(UserError, match="torch") as caught:
            verb()
        assert "fluxkit[sample]" in caught.value.fix


SAMPLE_OPTIONS = (
    "run_id",
    "checkpoint",
    "prompt",
    "seeds",
    "strength",
    "size",
    "num_inference_steps",
    "guidance_scale",
    "quantize",
    "batch_size",
    "folder",
)


def test_nothing_is_missing_here() -> None:
    extras.require("sample", "This test")
