"""Two CPU processes (gloo) rehearse with the real SimpleTuner 4.8.0, and train one adapter."""

import json
import re
from pathlib import Path

import pytest

from fluxkit.dataset.demo import make_demo_dataset
from tests.real import fluxkit


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished rehearsal with `--gpus 2` on six photos."""
    root = tmp_path_factory.mktemp("two") / "project"
    make_demo_dataset(root / "dataset", "fxkdemo", "person")
    flags = ["--trigger", "fxkdemo", "--subject", "person", "--dataset", "dataset", "--profile", "24gb", "--yes"]
    fluxkit("init", root, "--simpletuner", "4.8.0", *flags)
    config = root / "fluxkit.toml"
    config.write_text(config.read_text().replace("[simpletuner]", '[simpletuner]\nplatform = "cpu"'))
    (root / "prompts.toml").write_text('[prompts]\nportrait = "{trigger} a portrait"\n')
    fluxkit("install", "-C", root)
    # More threads than processors, and two processes on two busy cores wait for each other for minutes.
    fluxkit("train", "-C", root, "--rehearse", "--gpus", "2", "-o", "torch_num_threads=1")
    (record,) = root.glob("runs/*/run.json")
    return record.parent


@pytest.mark.slow
def test_two_processes_share_the_photos_and_write_one_set_of_checkpoints(run: Path) -> None:
    (state_file,) = (run / "output" / "checkpoint-4").glob("training_state-fxkdemo-*.json")  # one: the first process's
    state = json.loads(state_file.read_text())
    assert (state["dp_size"], state["dp_rank"]) == (2, 0)
    # Half of the six photos are this process's.
    (photos,) = state["aspect_ratio_bucket_indices"].values()
    assert len(photos) == 3
    config = json.loads((run / "output" / "simpletuner_config.json").read_text())
    assert (config["num_update_steps_per_epoch"], config["total_batch_size"]) == (3 * 1001, 2)
    assert sorted(path.name for path in run.glob("output/checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.slow
def test_they_train_one_adapter_and_nothing_of_it_is_missing(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["gpus"], record["batch_size"], record["modules"]) == ("finished", 2, 2, 30)
    # Without the shim `lycoris_sync` each process trains an adapter of its own.
    said = re.findall(r"fluxkit: 2 processes average (\d+) gradients", (run / "logs" / "trainer.log").read_text())
    assert said == ["60"]  # two matrices a module


@pytest.mark.slow
def test_validation_images_are_shared_out_and_all_there(run: Path) -> None:
    # Without the shim `skip_torch` the processes wait for each other here, forever.
    steps = {int(path.name.split("_")[1]) for path in (run / "output" / "validation_images").glob("step_*.png")}
    assert steps == {0, 2, 4}
