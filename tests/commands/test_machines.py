"""`fluxkit train` on several GPUs and machines, around a stand-in for the trainer."""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fluxkit.commands import machines
from fluxkit.console import Output
from fluxkit.errors import InterruptedByUser, TrainerError, UserError
from fluxkit.hardware import Gpu
from fluxkit.trainer.launch import RunPlan
from fluxkit.trainer.runs import list_runs
from tests.commands.test_train import FINISH, SAVE, Trainer, run_train
from tests.interrupting import interrupting
from tests.trainer.checkpointed import write_checkpoint


@pytest.fixture
def two_gpus(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machines, "gpus_of_machine", lambda: [Gpu("a card", 24 << 30, 24 << 30, "580")] * 2)
    toml = project / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("[simpletuner]", '[simpletuner]\nplatform = "cuda"'))
    return project


def accelerate(run_folder: Path) -> dict[str, str]:
    text = (run_folder / "config" / "accelerate.yaml").read_text()
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_two_gpus_are_launched_recorded_and_counted(two_gpus: Path, trainer: Trainer) -> None:
    trainer(FINISH)
    run = run_train(two_gpus, gpus=2)
    assert run is not None
    assert (run.record.gpus, run.record.machines, run.record.batch_size) == (2, 1, 2)
    assert accelerate(run.folder)["num_processes"] == "2"
    assert int(accelerate(run.folder)["main_process_port"]) > 1024


def test_the_same_command_goes_on_with_the_gpus_that_the_run_had(
    two_gpus: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(SAVE + "save(5)")
    with pytest.raises(TrainerError):
        run_train(two_gpus, gpus=2)
    trainer(FINISH)
    run = run_train(two_gpus)
    assert run is not None
    assert run.record.gpus == 2
    assert "→" not in capsys.readouterr().out


def test_another_number_of_gpus_is_said_before_it_matters(
    two_gpus: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(two_gpus, gpus=2)
    write_checkpoint(list_runs(two_gpus / "runs")[0].output_dir, 5)
    trainer("raise SystemExit('must not start')")
    run_train(two_gpus, gpus=1, dry_run=True)
    said = capsys.readouterr().out
    assert "processes: 2 → 1 (the photos' order is drawn anew" in said
    assert "images a step: 2 → 1" in said


def test_without_a_checkpoint_another_number_of_gpus_changes_nothing(
    two_gpus: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(two_gpus, gpus=2)
    trainer(FINISH)
    run = run_train(two_gpus, gpus=1)
    assert run is not None
    assert (run.record.gpus, run.record.batch_size) == (1, 1)
    assert "→" not in capsys.readouterr().out


def test_checkpoints_that_are_split_among_gpus_are_refused_on_another_number(two_gpus: Path, trainer: Trainer) -> None:
    options = ("fsdp_enable=true",)
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(two_gpus, gpus=2, option=options)
    write_checkpoint(list_runs(two_gpus / "runs")[0].output_dir, 5)
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match=r"processes: 2 → 1 \(the checkpoint is split among"):
        run_train(two_gpus, gpus=1, option=options)


def test_more_gpus_than_there_are_stop_it_before_a_run_is_made(two_gpus: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match="3 GPUs were asked for"):
        run_train(two_gpus, gpus=3)
    assert not list(two_gpus.glob("runs/*"))


def test_several_processes_on_a_cpu_are_for_rehearsals(project: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match="rehearsals only"):
        run_train(project, gpus=2)


def test_photos_that_do_not_go_round_stop_it(two_gpus: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "gpus_of_machine", lambda: [Gpu("a card", 24 << 30, 24 << 30, "580")] * 8)
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match="dataset has errors"):
        run_train(two_gpus, gpus=8)  # 6 photos


def port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_its_session_takes_a_joining_machines_trainer_along(tmp_path: Path, number: signal.Signals) -> None:
    """The trainer is in a session of its own: nobody else would end it."""
    code = "import os, pathlib, time; pathlib.Path('up').write_text(str(os.getpid())); time.sleep(60)"
    plan = RunPlan((sys.executable, "-c", code), tmp_path, dict(os.environ))
    run: Any = SimpleNamespace(record=SimpleNamespace(id="20261124-001"))
    with interrupting(tmp_path, "up", number=number), pytest.raises(InterruptedByUser):
        machines.take_part(plan, run, 1, Output())
    assert not psutil.pid_exists(int((tmp_path / "up").read_text()))


def test_a_second_machine_joins_the_run_and_leaves_its_record_alone(
    two_gpus: Path, trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Machine 0 waits for the other, as the trainer does; both see the same config and who they are."""
    seen = tmp_path / "seen"
    seen.mkdir()
    # The file of accelerate's settings says which machine this is.
    trainer(
        f"seen = Path({str(seen)!r})\ntext = Path(os.environ['ACCELERATE_CONFIG_PATH']).read_text()\n"
        "rank = text.split('machine_rank: ')[1][0]\n(seen / rank).write_text(json.dumps([config, text, os.getcwd()]))\n"
        "while len(list(seen.iterdir())) < 2: time.sleep(0.05)\n" + f"{FINISH}"
    )
    together = {"gpus": 2, "num_machines": 2, "main_address": f"127.0.0.1:{port()}"}
    results: list[object] = []
    first = threading.Thread(target=lambda: results.append(run_train(two_gpus, machine_rank=0, **together)))
    first.start()
    assert run_train(two_gpus, machine_rank=1, **together) is None
    first.join()
    (run,) = list_runs(two_gpus / "runs")
    assert results == [run]
    assert (run.record.status, run.record.machines, run.record.batch_size) == ("finished", 2, 4)
    (config0, text0, cwd0), (config1, text1, cwd1) = (json.loads((seen / name).read_text()) for name in "01")
    assert config0 == config1
    assert "machine_rank: 1" in text1
    assert text0.replace("machine_rank: 0", "machine_rank: 1") == text1
    assert (cwd0, cwd1) == (str(run.folder), str(run.folder / "machine-1"))
    assert "Machine 1 is done" in capsys.readouterr().out


def test_a_machine_with_other_settings_is_refused(two_gpus: Path, trainer: Trainer) -> None:
    trainer("time.sleep(0)")
    together = {"gpus": 1, "num_machines": 2, "main_address": f"127.0.0.1:{port()}"}
    with pytest.raises(TrainerError):
        run_train(two_gpus, machine_rank=0, **together)
    (run,) = list_runs(two_gpus / "runs")
    run.update(status="running")
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match=r"--train_batch_size \(1, here 2\)"):
        run_train(two_gpus, machine_rank=1, option=("train_batch_size=2",), **together)
    with pytest.raises(UserError, match="each machine must have as many"):
        run_train(two_gpus, machine_rank=1, **{**together, "gpus": 2})


def test_a_machine_that_waits_in_vain_says_for_what(
    two_gpus: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer("raise SystemExit('must not start')")
    monkeypatch.setattr(machines, "JOIN_SECONDS", 0)
    with pytest.raises(UserError, match="No run on 2 machines") as caught:
        run_train(two_gpus, num_machines=2, machine_rank=1, main_address="10.0.0.1", out=Output(verbosity=-1))
    assert "shared" in caught.value.fix
