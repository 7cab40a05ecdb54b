"""SimpleTuner 4.8.0 itself, on a CPU: its webhooks arrive and are understood, and it saves when it is asked to."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.trainer.control import is_complete
from fluxkit.trainer.metrics import curves, read_metrics, read_status
from fluxkit.trainer.runs import list_runs
from fluxkit.trainer.tensorboard import logged
from tests.commands.trainers import wait_until
from tests.interrupting import noted
from tests.real import REAL_ENVIRONMENT, fluxkit

RELEASE = "4.8.0"


@pytest.mark.slow
def test_the_first_ctrl_c_of_a_rehearsal_saves_a_checkpoint_that_webhooks_announce(tmp_path: Path) -> None:
    root = tmp_path / "project"
    make_demo_dataset(root / "dataset", "fxkdemo", "person")
    flags = ["--trigger", "fxkdemo", "--subject", "person", "--dataset", "dataset", "--profile", "24gb", "--yes"]
    fluxkit("init", root, "--simpletuner", RELEASE, *flags)
    config = root / "fluxkit.toml"
    config.write_text(config.read_text().replace("[simpletuner]", '[simpletuner]\nplatform = "cpu"'))
    fluxkit("install", "-C", root)
    training = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, "train", "-C", str(root), "--rehearse"],
        env={**REAL_ENVIRONMENT, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        stepped = noted(root, "step")
        wait_until(lambda: stepped() or training.poll() is not None, "the first step", 900)
        training.send_signal(signal.SIGINT)
        said, _ = training.communicate(timeout=900)
    finally:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
            training.communicate()
    assert training.returncode == 130, said
    (run,) = list_runs(root / "runs")
    (saved,) = run.checkpoints()
    assert f"Stopped; checkpoint-{saved} is kept." in said
    assert saved % 1000  # no checkpoint was due: it was made because it was asked for
    assert is_complete(run.checkpoints()[saved].parent)
    state = json.loads((run.output_dir / f"checkpoint-{saved}" / "training_state.json").read_text())
    assert state["global_step"] == saved
    assert run.record.status == "interrupted"
    # What only the webhooks tell: this stage, the checkpoint's announcement, and losses in full precision.
    told = list(read_metrics(run))
    assert "Preparing the model" in [event["name"] for event in told if event["event"] == "stage"]
    assert [event["step"] for event in told if event["event"] == "checkpoint"] == [saved]
    assert all(len(str(loss)) > 8 for loss in curves(run).loss.values())
    # TensorBoard's files, read by us, hold the same; the trainer was stopped, so they may lack what came last.
    in_events = {step: each.loss for step, each in logged(run).items() if step in curves(run).loss}
    assert len(in_events) >= saved - 1
    assert in_events == pytest.approx({step: curves(run).loss[step] for step in in_events})
    assert all(each.learning_rate and each.gradient_norm for each in logged(run).values())
    status = read_status(run)
    assert status is not None
    assert (status.checkpoint, status.stopping) == (saved, "checkpoint")
    assert "log.message" not in (run.folder / "metrics.jsonl").read_text()


# A rehearsal of 4 steps is over before anybody could press a key.
ENDLESS = (
    "import fluxkit.rendering.settings as settings, sys;"
    "settings.Rehearsal.__init__.__defaults__ = (2000, 1000, 64);"
    "import fluxkit.cli; fluxkit.cli.main()"
)
