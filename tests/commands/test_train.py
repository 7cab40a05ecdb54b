"""`fluxkit train` around a stand-in for the trainer: it writes what SimpleTuner writes, or fails as it does."""

import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.commands import assemble as shared
from fluxkit.commands import train as command
from fluxkit.console import Output
from fluxkit.errors import GpuMemoryError, InterruptedByUser, TrainerError, UserError
from fluxkit.trainer.environment import Environment, environment_for
from fluxkit.trainer.integrity import Damage
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.runs import ADAPTER_FILE, Run, list_runs
from tests.interrupting import interrupting
from tests.projects import small_project

BAR = "Epoch 1/1, Steps: 100%|#| {step}/{total} [00:01<00:00,  1.00s/it, lr=1e-4, step_loss=0.25]"
SAVE = f"""
def save(step):
    (out / f"checkpoint-{{step}}").mkdir(parents=True, exist_ok=True)
    shutil.copy(weights, out / f"checkpoint-{{step}}")
    (out / f"checkpoint-{{step}}" / "training_state.json").write_text(json.dumps({{"global_step": step}}))
    print({BAR!r}.format(step=step, total=10), end="\\r", flush=True)
"""
FINISH = SAVE + "save(10)\nshutil.copy(weights, out)\n"
Trainer = Callable[[str], None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, _ = small_project(tmp_path)
    monkeypatch.setattr(shared, "is_ready", lambda _: True)
    monkeypatch.setattr(shared, "find_damage", lambda _: [])
    return root


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Give the trainer's environment a `simpletuner` that runs this Python code in the run's folder."""

    def make(code: str) -> None:
        launcher = tmp_path / "env" / "bin" / "simpletuner"
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(
            f"#!{sys.executable}\nimport json, os, shutil, sys, time\nfrom pathlib import Path\n"
            f"config = json.loads(Path('config/config.json').read_text())\nout = Path(config['--output_dir'])\n"
            f"weights = Path({str(tmp_path / ADAPTER_FILE)!r})\n{code}\n"
        )
        launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)

        def located(lock: Lock) -> Environment:
            return replace(environment_for(lock), root=tmp_path / "env", python=tmp_path / "env" / "bin" / "python")

        monkeypatch.setattr(shared, "environment_for", located)

    return make


def run_train(project: Path, **options: object) -> Run | None:
    defaults = {"rehearse": False, "dry_run": False, "fresh": False, "option": (), "out": Output()}
    return command.train(project, **{**defaults, **options})  # type: ignore[arg-type]


def test_a_good_run_is_recorded_with_its_modules(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(FINISH)
    run = run_train(project)
    assert run is not None
    assert (run.record.status, run.record.modules) == ("finished", 15)
    printed = capsys.readouterr().out
    assert "step 10/10 · loss 0.2500" in printed
    assert printed.strip().endswith(str(run.final_weights))


def test_the_pace_of_its_steps_is_recorded(project: Path, trainer: Trainer) -> None:
    bar = BAR.replace("0.25", "0.{step}")
    trainer(f"for step in range(1, 10):\n    print({bar!r}.format(step=step, total=10), flush=True)\n{FINISH}")
    run = run_train(project)
    assert run is not None
    assert run.record.seconds_per_step is not None
    assert 0 <= run.record.seconds_per_step < 60
    assert (run.record.profile, run.record.resolutions, run.record.batch_size) == ("24gb", (1024, 512), 1)
    assert list_runs(project / "runs")[-1].record == run.record


def test_exit_code_0_without_weights_is_a_failure_with_the_log(project: Path, trainer: Trainer) -> None:
    trainer("print('so long')")
    with pytest.raises(TrainerError, match="no final weights") as caught:
        run_train(project)
    (run,) = list_runs(project / "runs")
    assert run.record.status == "failed"
    assert "so long" in run.log_file.read_text()
    assert "so long" in caught.value.message


def test_a_log_that_a_full_disk_cannot_take_is_no_bug(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(FINISH)

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command.launch, "launch", full)
    with pytest.raises(TrainerError, match="No space left") as caught:
        run_train(project)
    assert "Free some space" in caught.value.fix


def test_a_failure_is_explained_by_what_this_launch_printed(project: Path, trainer: Trainer) -> None:
    trainer("print('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.')\nsys.exit(1)")
    with pytest.raises(GpuMemoryError, match="GPU's memory") as caught:
        run_train(project)
    assert caught.value.exit_code == 5
    trainer("print('No images were discovered by the bucket manager')")
    with pytest.raises(TrainerError, match="No photo is left") as caught:
        run_train(project)
    assert caught.value.exit_code == 3
    (run,) = list_runs(project / "runs")
    assert run.record.message.startswith("No photo is left")


def test_ctrl_c_keeps_the_checkpoint_and_the_next_train_continues_the_run(project: Path, trainer: Trainer) -> None:
    trainer(SAVE + "save(5)\nPath('up').touch()\ntime.sleep(60)")
    up = interrupting(project, "runs/*/up")
    with up, pytest.raises(InterruptedByUser, match="checkpoint-5 is kept") as caught:
        run_train(project)
    assert "fluxkit train" in caught.value.fix
    trainer(FINISH + "Path('seen').write_text(config['--resume_from_checkpoint'])")
    run = run_train(project)
    assert run is not None
    assert [r.record.id for r in list_runs(project / "runs")] == [run.record.id]
    assert (run.folder / "seen").read_text() == "latest"


def test_a_finished_run_is_followed_by_a_new_one(project: Path, trainer: Trainer) -> None:
    trainer(FINISH)
    first, second = run_train(project), run_train(project)
    assert first is not None
    assert second is not None
    assert first.record.id < second.record.id


def test_a_dry_run_prints_the_launch_and_makes_no_run(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer("raise SystemExit('must not start')")
    run_train(project, dry_run=True, out=Output(as_json=True))
    plan = json.loads(capsys.readouterr().out)
    assert plan["argv"][1:] == ["train"]
    assert plan["env"]["ACCELERATE_CONFIG_PATH"].startswith(plan["cwd"])
    assert not list(project.glob("runs/*"))


def test_a_broken_dataset_stops_it_before_launch(project: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit('must not start')")
    next(project.glob("dataset/*.txt")).unlink()
    with pytest.raises(UserError, match="dataset has errors"):
        run_train(project)
    assert not list(project.glob("runs/*"))


def test_an_unknown_option_stops_it_before_launch_and_names_the_right_one(project: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match="train_batch_size"):
        run_train(project, option=("train_batchsize=2",))
    assert not list(project.glob("runs/*"))


def test_without_an_environment_the_next_step_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "is_ready", lambda _: False)
    with pytest.raises(UserError, match="not installed") as caught:
        run_train(project)
    assert "fluxkit install" in caught.value.fix


def test_a_damaged_trainer_is_said_before_launch(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("raise SystemExit('must not start')")
    monkeypatch.setattr(shared, "find_damage", lambda _: [Damage("torch/version.py is missing", "torch")])
    with pytest.raises(UserError, match=r"torch/version.py is missing") as caught:
        run_train(project)
    assert "fluxkit install" in caught.value.fix
    assert not list(project.glob("runs/*"))
