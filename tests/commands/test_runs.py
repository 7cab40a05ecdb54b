import json
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands.runs import list_all, plot_losses, show
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.trainer.metrics import Journal
from fluxkit.trainer.occupancy import occupy
from fluxkit.trainer.progress import Step
from fluxkit.trainer.runs import ADAPTER_FILE, Run, new_run
from fluxkit.trainer.watch import Watch
from tests.trainer.test_runs import RECORD

pytestmark = pytest.mark.usefixtures("no_dictionaries")


@pytest.fixture
def run(project: Path) -> Run:
    """Stopped after 6 of 10 steps."""
    made = new_run(project / "runs", {**RECORD, "profile": "24gb"}).update(status="running")
    watch = Watch(made, Journal(made))
    for step in range(1, 7):
        watch.hook(Step(step, 10, 0.6 - step / 20, 1e-4, 1.5))
    watch.end()
    for step in (2, 4):
        folder = made.output_dir / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / ADAPTER_FILE).touch()
    images = made.output_dir / "validation_images"
    images.mkdir()
    for name in ("step_4_book_0_64x64.png", "step_2_book_0_64x64.png", "step_10_a\x1b[31m_0_64x64.png", "other.png"):
        (images / name).touch()
    return made


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_the_list_tells_what_became_of_each(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    new_run(project / "runs", {**RECORD, "rehearsal": True, "steps": 4}).update(
        status="finished", seconds_per_step=0.75
    )
    new_run(project / "runs", RECORD).update(status="failed", message="it broke")
    capsys.readouterr()
    list_all(project, out=Output())
    _, died, rehearsed, failed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert died[:2] == [run.record.id, "died"]  # it says that it runs, and nobody runs it
    assert {"6/10", "24gb", "4.8.0"} <= set(died)
    assert rehearsed[1:3] == ["finished", "(rehearsal)"]
    assert {"4/4", "0.75"} <= set(rehearsed)
    assert failed[1] == "failed"


def test_a_run_is_running_while_its_fluxkit_holds_the_project(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with occupy(project) as occupancy:
        occupancy.name(run.record.id)
        capsys.readouterr()
        list_all(project, out=Output(as_json=True))
        (told,) = document(capsys)["runs"]
    assert (told["status"], told["step"], told["steps"]) == ("running", 6, 10)
    assert told["seconds_left"] is not None
    list_all(project, out=Output(as_json=True))
    (told,) = document(capsys)["runs"]
    assert (told["status"], told["seconds_left"]) == ("died", None)


def test_no_runs_is_no_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    list_all(project, out=Output())
    assert "fluxkit train" in capsys.readouterr().out
    with pytest.raises(UserError, match="no runs"):
        show(project, run_id=None, out=Output())


def test_one_run_is_shown_with_its_curve_checkpoints_and_images(
    project: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.update(status="failed", message="SimpleTuner failed with exit code 1.")
    capsys.readouterr()
    show(project, run_id=run.record.id, out=Output())
    text = capsys.readouterr().out
    assert "failed (SimpleTuner 4.8.0)" in text
    assert "SimpleTuner failed with exit code 1." in text
    assert "loss by step" in text
    assert " 0.5500\n" in text  # the highest of the curve, at its top
    assert "Checkpoints: 2, 4" in text
    assert text.index("step 2: step_2_book") < text.index("step 4: step_4_book") < text.index("step 10:")
    assert "\x1b[31m" not in text
    assert "other.png" not in text


def test_the_newest_is_shown_when_none_is_named(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    newer = new_run(project / "runs", RECORD).update(status="failed")
    capsys.readouterr()
    show(project, run_id=None, out=Output(as_json=True))
    assert document(capsys)["id"] == newer.record.id
    assert newer.record.id != run.record.id


def test_the_json_has_what_the_page_about_it_says(
    project: Path, run: Run, project_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    show(project, run_id=run.record.id, out=Output(as_json=True))
    told = document(capsys)
    assert told["losses"] == [[step, pytest.approx(0.6 - step / 20)] for step in range(1, 7)]
    assert list(told["checkpoints"]) == ["2", "4"]
    assert list(told["validation_images"]) == ["2", "4", "10"]
    documented = (project_root / "docs" / "watching.md").read_text()
    assert [name for name in told if f"`{name}`" not in documented] == []


def test_a_long_curve_is_thinned_out_in_the_json(project: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"time": 0, "event": "step", "step": step, "loss": 0.5}) for step in range(1, 10_001)]
    (run.folder / "metrics.jsonl").write_text("\n".join(lines))
    capsys.readouterr()
    show(project, run_id=None, out=Output(as_json=True))
    steps = [step for step, _ in document(capsys)["losses"]]
    assert len(steps) <= 2001
    assert (steps[0], steps[-1]) == (1, 10_000)


@pytest.mark.parametrize("losses", [{}, {1: 0.5}, {1: float("nan"), 2: float("inf")}])
def test_nothing_to_draw_is_nothing(losses: dict[int, float]) -> None:
    assert plot_losses(losses) == ""


def test_a_curve_that_is_flat_or_broken_is_drawn() -> None:
    assert "0.5000" in plot_losses({1: 0.5, 2: 0.5})
    assert "0.5000" in plot_losses({1: 0.5, 2: float("nan"), 3: 0.4})
