"""A run that is watched: what is shown and written down, what Ctrl-C does, and that watching never harms it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands import live, supervise
from fluxkit.console import Output
from fluxkit.errors import InterruptedByUser, TrainerError, UserError
from fluxkit.trainer import listener as listening
from fluxkit.trainer.metrics import curves, read_metrics, read_status
from fluxkit.trainer.occupancy import holder_of, occupy
from fluxkit.trainer.runs import Run, list_runs
from tests.commands.test_train import Trainer, run_train
from tests.commands.trainers import DEAF, FINISH, PATIENT, POST, STEP
from tests.interrupting import interrupting, noted

STATUS = """
def status(number, loss):
    progress = {"current": number, "total": 10, "metrics": {"loss": loss, "learning_rate": 1e-4}}
    post({"type": "training.status", "data": {"status": "running"}, "progress": progress})
"""
pytestmark = pytest.mark.usefixtures("no_dictionaries")
STAGE = 'post({"type": "lifecycle.stage", "stage": {"key": "%s", "status": "running", "progress": %s}})\n'


def only_run(project: Path) -> Run:
    (run,) = list_runs(project / "runs")
    return run


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_metrics(run) if event["event"] == kind]


def test_webhooks_tell_stages_steps_and_checkpoints(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(
        POST
        + STATUS
        + STAGE % ("init_cache_text_embeds_status_update", '{"current": 12, "total": 40}')
        + "for number in range(1, 11):\n    status(number, number / 1000)\n"
        + 'post({"type": "training.checkpoint", "checkpoint": {"path": str(out / "checkpoint-10")}})\n'
        + FINISH
    )
    run = run_train(project)
    assert run is not None
    assert curves(run).loss == {number: number / 1000 for number in range(1, 11)}
    assert events(run, "stage")[0]["name"] == "Encoding captions"
    assert [event["step"] for event in events(run, "checkpoint")] == [10]
    assert events(run, "end")[0]["status"] == "finished"
    assert "  Encoding captions …" in capsys.readouterr().out
    status = read_status(run)
    assert status is not None
    assert (status.step, status.steps, status.checkpoint) == (10, 10, 10)


def test_a_webhook_of_the_users_own_stays(project: Path, trainer: Trainer, tmp_path: Path) -> None:
    trainer("Path('seen').write_text(config['--webhook_config'])\n" + FINISH)
    mine = str(tmp_path / "mine.json")
    run = run_train(project, option=(f"webhook_config={mine}",))
    assert run is not None
    assert (run.folder / "seen").read_text() == mine
    assert curves(run).loss == {10: 0.25}  # from the output


def test_without_a_listener_the_output_has_to_do(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no loopback interface")

    monkeypatch.setattr(listening, "_Server", refuse)
    trainer("assert '--webhook_config' not in config\n" + FINISH)
    run = run_train(project)
    assert run is not None
    assert curves(run).loss == {10: 0.25}


def test_garbage_from_the_trainer_harms_nothing(project: Path, trainer: Trainer) -> None:
    trainer(
        POST
        + "for body in (b'', b'{', b'\\xff' * 1000, b'[' * 10000, b'{\"type\": {}}', b'{\"type\": 1}'):\n"
        + "    post(body)\n"
        + "sys.stdout.buffer.write(b'\\xff\\xfe Steps: 10%|x| 1e9/ [\\n')\n"
        + FINISH
    )
    run = run_train(project)
    assert run is not None
    assert run.record.status == "finished"


def test_a_listener_that_dies_harms_nothing(project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: listening.Listener) -> None:
        raise RuntimeError("dead")

    monkeypatch.setattr(listening.Listener, "drain", die)
    trainer(POST + STATUS + "status(3, 0.1)\n" + FINISH)
    run = run_train(project)
    assert run is not None
    assert curves(run).loss == {10: 0.25}


def test_a_fault_of_the_watching_is_said_and_harms_nothing(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in the display")

    monkeypatch.setattr(live.Live, "show", fail)
    trainer(FINISH)
    run = run_train(project)
    assert run is not None
    assert "could be shown or recorded: ZeroDivisionError: in the display" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", [OSError(5, "Input/output error"), SystemExit(1)])
def test_a_terminal_that_went_away_does_not_end_the_training(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    def gone(_: Output, text: str = "", **_style: object) -> None:
        if text.startswith("  "):
            raise trouble

    monkeypatch.setattr(Output, "say", gone)
    trainer(STEP + "step(1, 0.5)\nprint('Loading diffusion model')\n" + FINISH)
    run = run_train(project)
    assert run is not None
    assert run.record.status == "finished"


def test_the_trainer_is_told_where_to_look_and_to_keep_off_proxies(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    trainer("Path('env.json').write_text(json.dumps(dict(os.environ)))\n" + FINISH)
    run = run_train(project)
    assert run is not None
    env = json.loads((run.folder / "env.json").read_text())
    assert env["HTTP_PROXY"] == "http://proxy.example:3128"
    assert env["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
    assert env["no_proxy"] == env["NO_PROXY"]
    assert Path(env["SIMPLETUNER_ACCELERATE_SIGNAL_FILE"]).read_text().strip() == "{}"


def test_the_first_ctrl_c_waits_for_the_checkpoint(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(PATIENT)
    with (
        interrupting(project, noted(project, "step", step=3)),
        pytest.raises(InterruptedByUser, match="checkpoint-4 is kept"),
    ):
        run_train(project)
    run = only_run(project)
    assert run.record.status == "interrupted"
    assert list(run.checkpoints()) == [4]
    assert [event["how"] for event in events(run, "stop")] == ["checkpoint"]
    assert "Asked for a checkpoint" in capsys.readouterr().out
    assert holder_of(project) is None


def test_the_second_ctrl_c_stops_now(project: Path, trainer: Trainer) -> None:
    trainer(DEAF)
    moments = (noted(project, "step"), noted(project, "stop"))  # two signals at once would count as one
    with interrupting(project, *moments), pytest.raises(InterruptedByUser, match="no checkpoint was written yet"):
        run_train(project)
    assert only_run(project).record.status == "interrupted"


def test_before_the_first_step_there_is_nothing_to_wait_for(project: Path, trainer: Trainer) -> None:
    trainer("Path('up').touch()\ntime.sleep(60)\n")
    with interrupting(project, "runs/*/up"), pytest.raises(InterruptedByUser, match="no checkpoint"):
        run_train(project)
    assert events(only_run(project), "stop") == []


def test_a_release_that_can_not_be_asked_stops_now_and_says_so(
    project: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "can_be_asked", lambda _: False)
    trainer(DEAF)
    said = "SimpleTuner 4.8.0 can't be asked for one more"
    with interrupting(project, noted(project, "step")), pytest.raises(InterruptedByUser, match=said):
        run_train(project)


def test_a_checkpoint_of_the_last_step_is_not_asked_for_again(project: Path, trainer: Trainer) -> None:
    saved = 'save(3)\npost({"type": "training.checkpoint", "checkpoint": {"path": "checkpoint-3"}})\nPath("up").touch()'
    trainer(POST + PATIENT.replace('Path("up").touch()', saved))
    known = [noted(project, "step", step=3), noted(project, "checkpoint", step=3)]
    both = interrupting(project, lambda: all(each() for each in known))
    with both, pytest.raises(InterruptedByUser, match="checkpoint-3 is kept"):
        run_train(project)
    assert (only_run(project).folder / "logs" / "signals.json").read_text().strip() == "{}"


def test_a_checkpoint_that_fails_is_the_trainers_failure(project: Path, trainer: Trainer) -> None:
    trainer(PATIENT.replace("save(4)", "print('OSError: No space left on device'); sys.exit(1)"))
    with interrupting(project, noted(project, "step")), pytest.raises(TrainerError, match="disk is full"):
        run_train(project)
    assert only_run(project).record.status == "failed"


def test_a_training_that_ends_while_it_is_asked_is_finished(project: Path, trainer: Trainer) -> None:
    trainer(PATIENT.replace("save(4)\ntime.sleep(60)", FINISH.split("\n", 1)[1]))
    with interrupting(project, noted(project, "step")):
        run = run_train(project)
    assert run is not None
    assert run.record.status == "finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_session_is_recorded(project: Path, trainer: Trainer, number: signal.Signals) -> None:
    trainer(DEAF)
    with interrupting(project, "runs/*/up", number=number), pytest.raises(InterruptedByUser):
        run_train(project)
    assert only_run(project).record.status == "interrupted"


def test_the_signals_mean_afterwards_what_they_meant_before(project: Path, trainer: Trainer) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    trainer(FINISH)
    run_train(project)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_one_trainer_a_project(project: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit('must not start')")
    with occupy(project) as other:
        other.name("20261124-042")
        with pytest.raises(UserError, match="Run 20261124-042 is training in this project"):
            run_train(project)
        run_train(project, dry_run=True)  # looking is allowed
    assert list_runs(project / "runs") == []
