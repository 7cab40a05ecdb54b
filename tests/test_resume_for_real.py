"""A run that was cut short goes on, with the real SimpleTuner 4.8.0: from the checkpoint before the damaged one, to a
later end, without the photo that was taken out in between.
"""

import json
import re
from pathlib import Path

import pytest

from fluxkit.commands.train import train
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.sampling.tiny_flux import make_tiny_flux
from fluxkit.trainer.progress import parse_step
from fluxkit.trainer.runs import Run
from fluxkit.trainer.shims import shims_for
from tests.real import fluxkit

TOML = """[project]
name = "resume"
trigger = "fxkdemo"
[dataset]
resolutions = [512]
[model]
base = "{base}"
[train]
steps = {steps}
checkpoint_every = 2
validate_every = 100
[train.options]
report_to = "none"
validation_resolution = "64x64"
validation_num_inference_steps = 1
[simpletuner]
version = "4.8.0"
platform = "cpu"
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    make_demo_dataset(root / "dataset", "fxkdemo", "person")
    (root / "prompts.toml").write_text('[prompts]\none = "{trigger} in the rain"\n')
    write(root, steps=4, base=make_tiny_flux(tmp_path / "tiny-flux"))
    environment = fluxkit("install", "-C", root).strip().splitlines()[-1]
    # <cache>/envs/<environment>
    monkeypatch.setenv("FLUXKIT_CACHE", str(Path(environment).parents[1]))
    # Without a GPU the trainer needs the repair that a rehearsal brings.
    needed = shims_for("4.8.0", rehearsal_without_cuda=True, options={})
    monkeypatch.setattr("fluxkit.commands.launching.shims_for", lambda *_, **__: needed)
    return root


def write(root: Path, *, steps: int, base: Path) -> None:
    (root / "fluxkit.toml").write_text(TOML.format(steps=steps, base=base))


def go(root: Path) -> Run:
    run = train(root, rehearse=False, dry_run=False, fresh=False, option=(), out=Output())
    assert run is not None
    return run


@pytest.mark.slow
def test_it_goes_on_from_the_newest_whole_checkpoint(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = go(root)
    run.update(status="failed")
    optimizer = run.output_dir / "checkpoint-4" / "optimizer.bin"
    optimizer.write_bytes(optimizer.read_bytes()[:-1000])
    taken_out = sorted((root / "dataset").glob("*.png"))[0]
    taken_out.unlink()
    taken_out.with_suffix(".txt").unlink()
    write(root, steps=6, base=tmp_path / "tiny-flux")
    before = run.log_file.stat().st_size
    capsys.readouterr()
    assert go(root).record.id == run.record.id

    said = capsys.readouterr()
    assert "checkpoint-4 can't be used: optimizer.bin is cut off or damaged" in said.err
    assert "max_train_steps: 4 → 6" in said.out
    assert "1 gone" in said.out
    assert "Trained: 6 steps, 30 modules" in said.out
    log = run.log_file.read_bytes()[before:].decode(errors="replace")
    steps = [step.step for line in re.split(r"[\r\n]+", log) if (step := parse_step(line)) and step.loss is not None]
    assert (min(steps), max(steps)) == (3, 6)
    assert (run.output_dir / "set-aside" / "checkpoint-4").is_dir()
    (schedule,) = (run.output_dir / "checkpoint-6").glob("training_state-*.json")
    assert json.loads((run.output_dir / "checkpoint-6" / "training_state.json").read_text())["global_step"] == 6
    assert taken_out.name not in schedule.read_text()
    assert not list(root.glob(f"dataset/aspect_ratio_bucket_*{taken_out.stem}*"))
    assert all(taken_out.name not in path.read_text() for path in root.glob("dataset/aspect_ratio_bucket_*.json"))
