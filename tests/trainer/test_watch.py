import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.trainer import runs
from fluxkit.trainer.events import Counter, Event, Saved, Stage
from fluxkit.trainer.metrics import Journal, Snapshot, curves, read_metrics, read_status
from fluxkit.trainer.progress import Step
from fluxkit.trainer.watch import Smooth, Watch
from tests.trainer.test_runs import RECORD

BAR = "Epoch 1/1, Steps:  10%|█| {step}/10 [00:08<00:25,  1.50s/it, lr=0.0001, step_loss={loss}]"


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 1.0
        return self.time


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    return runs.new_run(tmp_path / "runs", RECORD)


@pytest.fixture
def watch(run: runs.Run) -> Watch:
    return Watch(run, Journal(run), now=Clock())


def recorded(run: runs.Run, event: str) -> list[dict[str, object]]:
    return [each for each in read_metrics(run) if each["event"] == event]


def hook(watch: Watch, *events: Event) -> None:
    for event in events:
        watch.hook(event)


def hooked(step: int, loss: float) -> Step:
    return Step(step, 10, loss, 1e-4, None)


def test_the_mean_does_not_lean_towards_its_start() -> None:
    smooth = Smooth()
    assert smooth.add(0.8) == pytest.approx(0.8)
    assert smooth.add(0.4) == pytest.approx((0.98 * 0.8 + 0.4) / 1.98)
    for _ in range(1000):
        mean = smooth.add(0.5)
    assert mean == pytest.approx(0.5, abs=1e-6)


def test_a_loss_that_is_no_number_spoils_no_mean_and_is_shown(watch: Watch, run: runs.Run) -> None:
    hook(watch, hooked(1, 0.5), hooked(2, math.nan))
    assert watch.snapshot.smoothed == pytest.approx(0.5)
    assert "loss nan" in watch.snapshot.describe()
    last = recorded(run, "step")[-1]
    assert (last["loss"], last["finite"]) == (None, False)
    assert "NaN" not in (run.folder / "metrics.jsonl").read_text()


def test_a_step_counts_once_whichever_way_it_came(watch: Watch, run: runs.Run) -> None:
    watch.line(BAR.format(step=1, loss=0.9))  # the bar is redrawn with the loss of the step before
    hook(watch, hooked(1, 0.5001))
    watch.line(BAR.format(step=1, loss=0.5))
    hook(watch, hooked(2, 0.4001), hooked(2, 0.4001))
    watch.line(BAR.format(step=2, loss=0.4))
    assert [event["step"] for event in recorded(run, "step")] == [1, 2]
    assert curves(run).loss[2] == 0.4001


def test_a_listener_that_falls_silent_costs_a_step_at_most(watch: Watch, run: runs.Run) -> None:
    hook(watch, hooked(1, 0.5))
    for step in range(2, 6):
        watch.line(BAR.format(step=step, loss=step / 10))
    assert [event["step"] for event in recorded(run, "step")] == [1, 3, 4, 5]
    assert watch.snapshot.step == 5


def test_the_output_alone_is_enough(watch: Watch) -> None:
    watch.line("[INFO] Quantising FluxTransformer2DModel. Using int8-quanto.")
    assert watch.snapshot.stage == "Quantizing the base model"
    watch.line(BAR.format(step=1, loss=0.5))
    assert watch.snapshot.describe() == "step 1/10 · loss 0.5000 · lr 1.00e-04 · 1.50 s/step · 0:14 left"
    assert watch.stepping


def test_the_pace_is_of_the_steps_and_leaves_validation_out(run: runs.Run) -> None:
    times = iter([0.0, 2.0, 4.0, 64.0, 66.0, *[70.0] * 9])
    watch = Watch(run, Journal(run), now=lambda: next(times))
    hook(watch, *(hooked(step, 0.5) for step in range(1, 6)))
    assert watch.snapshot.seconds_per_step == pytest.approx(2.0)
    assert watch.snapshot.seconds_left == pytest.approx(10.0)


def test_counts_of_a_stage_survive_the_channel_that_does_not_count(watch: Watch) -> None:
    watch.take(Stage("Encoding captions", 12, 40))
    watch.line("[INFO] (id=x) Initialise text embed pre-computation using the textfile caption strategy.")
    assert watch.snapshot.describe_stage() == "Encoding captions 12/40"


def test_where_a_continued_run_stands_is_known_before_its_first_step(watch: Watch, run: runs.Run) -> None:
    watch.take(Counter(500, 1000))
    assert (watch.snapshot.step, watch.snapshot.steps, watch.stepping) == (500, 1000, False)
    hook(watch, hooked(501, 0.4))
    assert [event["step"] for event in recorded(run, "step")] == [501]


def test_a_count_that_comes_before_the_loss_hides_no_step(watch: Watch, run: runs.Run) -> None:
    watch.take(Counter(3, 10))
    watch.line(BAR.format(step=3, loss=0.3))
    assert [event["step"] for event in recorded(run, "step")] == [3]


def test_images_are_told_when_all_are_there(watch: Watch, run: runs.Run) -> None:
    folder = run.output_dir / "validation_images"
    folder.mkdir(parents=True)
    watch.take(Stage("Making validation images"))
    (folder / "step_2_book_0_64x64.png").touch()
    watch.tick()
    assert watch.snapshot.images == ()
    (folder / "step_2_canyon_0_64x64.png").touch()
    (folder / "step_0_book_0_64x64.png").touch()
    (folder / "notes.txt").touch()
    hook(watch, hooked(3, 0.4))
    watch.tick()
    assert (watch.snapshot.validation, len(watch.snapshot.images)) == (2, 2)
    assert [event["step"] for event in recorded(run, "validation")] == [2]


def test_a_checkpoint_is_told_once(watch: Watch, run: runs.Run) -> None:
    hook(watch, Saved(2), Saved(2))
    assert [event["step"] for event in recorded(run, "checkpoint")] == [2]
    assert "checkpoint 2" in watch.snapshot.describe()


def test_others_can_read_where_it_stands(run: runs.Run) -> None:
    watch = Watch(run, Journal(run), gpu=lambda: ((2**30, 24 * 2**30),), now=Clock())
    hook(watch, hooked(1, math.inf), Saved(1))
    watch.show()
    seen = read_status(run)
    assert seen is not None
    assert seen.gpu_bytes == ((2**30, 24 * 2**30),)
    assert seen == replace(watch.snapshot, loss=None)  # JSON has no infinity
    assert "GPU 1.0/24.0 GiB" in seen.describe()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"step": "many"}', '{"gpu_bytes": 3}', '{"images": 1}', '{"learning_rate": "x"}', "\x00"],
)
def test_a_damaged_status_is_none(run: runs.Run, text: str) -> None:
    (run.folder / "status.json").write_text(text)
    assert read_status(run) is None


def test_a_newer_fluxkits_status_is_read_as_far_as_it_is_known(run: runs.Run) -> None:
    (run.folder / "status.json").write_text('{"step": 4, "steps": 9, "mood": "good"}')
    assert read_status(run) == Snapshot(step=4, steps=9)


def test_a_metrics_line_that_was_cut_short_costs_that_line_only(watch: Watch, run: runs.Run) -> None:
    hook(watch, hooked(1, 0.5), hooked(2, 0.4))
    path = run.folder / "metrics.jsonl"
    path.write_text(path.read_text() + '[1]\n{"time": 1, "event": "st')
    assert curves(run).loss == {1: 0.5, 2: 0.4}


def test_steps_that_were_trained_again_count_as_trained_last(watch: Watch, run: runs.Run) -> None:
    hook(watch, hooked(1, 0.5), hooked(2, 0.4))
    again = Watch(run, Journal(run), now=Clock())
    hook(again, hooked(2, 0.3))
    assert curves(run).loss == {1: 0.5, 2: 0.3}


def test_a_run_of_an_older_fluxkit_has_its_losses_in_the_log(run: runs.Run) -> None:
    run.log_file.parent.mkdir(parents=True)
    run.log_file.write_text("\r".join(BAR.format(step=step, loss=step / 10) for step in (1, 2)))
    assert curves(run).loss == {1: 0.1, 2: 0.2}


def test_a_disk_that_is_full_ends_the_writing_not_the_run(run: runs.Run) -> None:
    (run.folder / "metrics.jsonl").mkdir()
    (run.folder / "status.json").mkdir()
    journal = Journal(run)
    watch = Watch(run, journal, now=Clock())
    hook(watch, hooked(1, 0.5))
    watch.show()
    assert watch.snapshot.step == 1
    assert journal.broken


def test_no_line_of_the_metrics_holds_more_than_documented(watch: Watch, run: runs.Run, project_root: Path) -> None:
    hook(watch, Stage("Caching latents", 1, 6), hooked(1, 0.5), Saved(1))
    watch.stopping("checkpoint")
    documented = (project_root / "docs" / "watching.md").read_text()
    for line in (run.folder / "metrics.jsonl").read_text().splitlines():
        for name in json.loads(line):
            assert f"`{name}`" in documented
