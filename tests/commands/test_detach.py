"""`train --detach`, `attach` and `stop`, as real processes around a trainer that stands in for SimpleTuner."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fluxkit.commands.assemble import open_project, pin_of
from fluxkit.trainer.cached import MARKER, environment_for
from fluxkit.trainer.metrics import read_status
from fluxkit.trainer.occupancy import Holder, holder_of
from fluxkit.trainer.pin import locked
from fluxkit.trainer.runs import Run, list_runs
from tests.commands.test_train import Trainer
from tests.commands.trainers import DEAF, FINISH, PATIENT, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_dictionaries")]
# The fluxkit of the subprocesses, without the search through dictionaries that takes it seconds.
FLUXKIT = (
    "import fluxkit.dataset.trigger as trigger, sys; trigger.word_languages = lambda _: {};"
    "import fluxkit.cli; sys.argv[0] = 'fluxkit'; fluxkit.cli.main()"
)


@pytest.fixture
def installed(project: Path, trainer: Trainer, tmp_path: Path) -> Iterator[Trainer]:
    """Like `trainer`, for other processes too: the environment lies where fluxkit looks for it."""
    toml = project / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("[simpletuner]", '[simpletuner]\nplatform = "cpu"'))

    def make(code: str) -> None:
        trainer(code)
        opened = open_project(project)
        lock = locked(pin_of(opened), opened.lock_file)
        assert lock is not None
        environment = environment_for(lock)
        environment.python.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "env" / "bin" / "simpletuner", environment.python.parent)
        environment.python.unlink(missing_ok=True)
        environment.python.symlink_to(sys.executable)
        (environment.root / "pyvenv.cfg").touch()
        (environment.root / "lib" / "python3.12" / "site-packages").mkdir(parents=True, exist_ok=True)
        (environment.root / MARKER).write_text(json.dumps({"digest": environment.digest}))

    yield make
    holder = holder_of(project)
    if holder:
        for process in [psutil.Process(holder.pid), *psutil.Process(holder.pid).children(recursive=True)]:
            process.kill()


def fluxkit(project: Path, *arguments: str, session: bool = False) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", FLUXKIT, *arguments, "-C", str(project)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=session,
    )


def said(process: "subprocess.Popen[str]", code: int = 0) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == code, output
    return output


def detached(project: Path) -> tuple[str, Holder]:
    """A run of three steps so far, of which the status tells: what the trainer did is known to the others later."""
    output = said(fluxkit(project, "train", "--detach"))
    wait_until(lambda: (status := read_status(only_run(project))) and status.step == 3, "three steps are known")
    holder = holder_of(project)
    assert holder is not None
    assert holder.trainer
    return output, holder


def attached(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    """An attach that has begun to look."""
    looking = fluxkit(project, "attach", *arguments, session=True)
    assert looking.stdout is not None
    assert "Ctrl-C ends the looking" in looking.stdout.readline()
    return looking


def only_run(project: Path) -> Run:
    (run,) = list_runs(project / "runs")
    return run


def test_it_outlives_the_terminal_and_stop_waits_for_the_checkpoint(project: Path, installed: Trainer) -> None:
    installed(PATIENT)
    output, holder = detached(project)
    assert f"Run {holder.run} goes on in the background" in output
    assert "fluxkit attach" in output
    # What a terminal that closes does to those who are still its: nothing to this one, which has no terminal.
    assert os.getsid(holder.pid) == holder.pid
    os.kill(holder.pid, signal.SIGHUP)
    stopped = said(fluxkit(project, "stop"))
    assert "Asked for a checkpoint" in stopped
    assert f"Run {holder.run}: interrupted; checkpoint-4 is kept." in stopped
    assert holder_of(project) is None
    (log,) = only_run(project).folder.glob("logs/fluxkit-*.log")
    assert f"Starting run {holder.run}" in log.read_text()
    assert list(project.glob("runs/.detached*")) == []


def test_ctrl_c_ends_the_looking_and_not_the_run(project: Path, installed: Trainer) -> None:
    installed(DEAF)
    _, holder = detached(project)
    looking = attached(project)
    assert looking.stdout is not None
    seen = ""
    while "step 3/10" not in seen:
        line = looking.stdout.readline()
        assert line, seen
        seen += line
    looking.send_signal(signal.SIGINT)
    assert f"Run {holder.run} goes on." in said(looking)
    assert holder_of(project) == holder
    assert f"Run {holder.run}: interrupted" in said(fluxkit(project, "stop", "--now"))
    assert not psutil.pid_exists(holder.trainer)


def test_attach_tells_how_it_ended_with_trains_exit_code(project: Path, installed: Trainer) -> None:
    installed(DEAF.replace("time.sleep(60)", "\nwhile not Path('go').exists(): time.sleep(0.05)\n" + FINISH))
    _, holder = detached(project)
    looking = attached(project, holder.run)
    (project / "runs" / holder.run / "go").touch()
    assert "pytorch_lora_weights.safetensors" in said(looking)
    assert only_run(project).record.status == "finished"


def test_a_killed_fluxkit_is_seen_and_its_trainer_can_be_ended(project: Path, installed: Trainer) -> None:
    installed(DEAF)
    _, holder = detached(project)
    looking = attached(project)
    os.kill(holder.pid, signal.SIGKILL)
    assert "died" in said(looking, 3)
    assert '"status": "died"' in said(fluxkit(project, "runs", "--json"))
    assert "still runs" in said(fluxkit(project, "train"), 1)
    assert "has ended" in said(fluxkit(project, "stop"))
    wait_until(lambda: not psutil.pid_exists(holder.trainer), "the trainer is gone")
    assert "Nothing is being trained" in said(fluxkit(project, "stop"), 1)


def test_what_keeps_it_from_beginning_is_on_the_screen(project: Path, installed: Trainer) -> None:
    installed(DEAF)
    next(project.glob("dataset/*.txt")).unlink()
    output = said(fluxkit(project, "train", "--detach"), 1)
    assert "The dataset has errors." in output
    assert holder_of(project) is None
    assert list(project.glob("runs/.detached*")) == []


def test_a_second_one_is_refused_and_json_is_one_document(project: Path, installed: Trainer) -> None:
    installed(DEAF)
    first = subprocess.run(
        [sys.executable, "-c", FLUXKIT, "train", "--detach", "--json", "-C", str(project)],
        capture_output=True,
        text=True,
        check=True,
    )
    holder = holder_of(project)
    assert holder is not None
    assert json.loads(first.stdout) | {"log": ""} == {"run": holder.run, "pid": holder.pid, "log": ""}
    assert f"Run {holder.run} is training in this project already" in said(fluxkit(project, "train", "--detach"), 1)
    assert f"Run {holder.run} is training in this project" in said(fluxkit(project, "train"), 1)
    assert "not 20200101-001" in said(fluxkit(project, "stop", "20200101-001"), 1)
    said(fluxkit(project, "stop", "--now"))


def test_a_machine_that_joins_a_run_is_refused_with_the_way_to_do_it(project: Path, installed: Trainer) -> None:
    installed(FINISH)
    several = ("--num-machines", "2", "--machine-rank", "1", "--main-address", "127.0.0.1")
    output = said(fluxkit(project, "train", "--detach", "--gpus", "1", *several), code=1)
    assert "--detach is for machine 0" in output
    assert "nohup fluxkit train … --machine-rank 1 … > machine-1.log 2>&1 &" in output.replace("\n", " ")
    assert list_runs(project / "runs") == []
    assert list((project / "runs").glob(".detached*")) == []
