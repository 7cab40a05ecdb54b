"""Event files: `events/` has one that SimpleTuner 4.8.0 wrote in a rehearsal of 4 steps (scalars only, 1,064 bytes)."""

import json
import os
import shutil
import struct
from pathlib import Path

import google_crc32c
import pytest

from fluxkit.trainer import runs
from fluxkit.trainer.events import Counter
from fluxkit.trainer.metrics import Journal, curves, read_metrics
from fluxkit.trainer.progress import Step
from fluxkit.trainer.tensorboard import LARGEST_RECORD, EventFolder, logged
from fluxkit.trainer.watch import Watch
from tests.trainer.test_runs import RECORD

EVENTS = Path(__file__).parent / "events"
NAME = "events.out.tfevents.1795527870.rehearsal.1.2"
# As TensorBoard 2.20's own reader (EventFileLoader) gives them, to a float's precision.
LOSSES = {1: 1.45032895, 2: 1.54986, 3: 1.51024866, 4: 1.53763008}
RATES = {1: 7.95240194e-05, 2: 5.76051789e-05, 3: 3.32557465e-05, 4: 4e-07}
NORMS = {1: 0.0561523438, 2: 0.0279541016, 3: 0.0698242188, 4: 0.0517578125}


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    made = runs.new_run(tmp_path / "runs", {**RECORD, "steps": 4})
    (made.output_dir / "logs" / "lora-training").mkdir(parents=True)
    return made


def write(run: runs.Run, data: bytes | None = None, name: str = NAME) -> Path:
    path = run.output_dir / "logs" / "lora-training" / name
    path.write_bytes((EVENTS / NAME).read_bytes() if data is None else data)
    return path


def record(data: bytes) -> bytes:
    """A TFRecord."""

    def masked(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def ends(data: bytes) -> list[int]:
    """Where each record ends."""
    found, at = [], 0
    while at < len(data):
        at += struct.unpack_from("<Q", data, at)[0] + 16
        found.append(at)
    return found


def test_what_the_trainer_logged_is_read_as_tensorboard_reads_it(run: runs.Run) -> None:
    write(run)
    seen = logged(run)
    assert {step: each.loss for step, each in seen.items()} == pytest.approx(LOSSES)
    assert {step: each.learning_rate for step, each in seen.items()} == pytest.approx(RATES)
    assert {step: each.gradient_norm for step, each in seen.items()} == pytest.approx(NORMS)
    assert seen[1].time == pytest.approx(1795527873.802, abs=0.01)


def test_a_file_cut_anywhere_gives_what_is_whole_and_goes_on_when_the_rest_comes(run: runs.Run) -> None:
    whole = (EVENTS / NAME).read_bytes()
    last = 0
    for cut in range(len(whole)):
        path = write(run, whole[:cut])
        events = EventFolder(run.output_dir)
        before = events.news()
        path.write_bytes(whole)
        after = events.news()
        last = max(last, *(each.step for each in before), 0)
        # A step may come in two parts, when the file ended between its loss and its learning rate.
        assert {each.step for each in before} | {each.step for each in after} == set(LOSSES)
        assert {e.step: e.loss for e in (*before, *after) if e.loss is not None} == pytest.approx(LOSSES)
        assert events.news() == []
    assert last == 4


def test_a_damaged_byte_ends_the_reading_there_and_harms_nothing(run: runs.Run) -> None:
    whole = (EVENTS / NAME).read_bytes()
    boundaries = ends(whole)
    undisturbed = [each.step for each in EventFolder(EVENTS).news()]
    for at in range(0, len(whole), 7):
        write(run, whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        seen = logged(run)
        # Nothing of the damaged record or behind it is believed.
        damaged = sum(end <= at for end in boundaries)
        assert len(seen) <= damaged
        assert list(seen) == undisturbed[: len(seen)]
        assert {step: each.loss for step, each in seen.items()} == pytest.approx({step: LOSSES[step] for step in seen})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an event file at all, but a text that somebody put there",
        b"\x00" * 4096,
        record(b"\xff" * 40),  # a whole record, its content no message
        record(b"\x2a\xff\xff\xff\x7f"),  # a summary that says it is longer than the record
        record(b"\x10\x01\x2a\x0b\x0a\x09\x0a\x0atrain_lo"),  # cut short inside
        record(b"\x10\x01\x2a\x10\x0a\x0e\x0a\x0atrain_loss\x10\x01"),  # the value is no float
    ],
)
def test_a_foreign_file_is_nothing(run: runs.Run, data: bytes) -> None:
    write(run, data)
    assert logged(run) == {}


def test_a_pipe_or_a_folder_of_that_name_is_nothing(run: runs.Run) -> None:
    folder = run.output_dir / "logs"
    os.mkfifo(folder / "events.out.tfevents.1.pipe")
    (folder / "events.out.tfevents.2.folder").mkdir()
    write(run)
    assert list(logged(run)) == list(LOSSES)


def test_pictures_between_the_steps_are_leapt_over(run: runs.Run) -> None:
    whole = (EVENTS / NAME).read_bytes()
    at = ends(whole)[3]
    picture = record(b"\xff" * (LARGEST_RECORD + 1))  # would end the reading if it were looked into
    path = write(run, whole[:at] + picture[:-9])
    events = EventFolder(run.output_dir)
    assert [each.step for each in events.news()] == [1]
    path.write_bytes(whole[:at] + picture + whole[at:])
    assert [each.step for each in events.news()] == [1, 2, 3, 4]


def test_a_logging_dir_of_the_users_own_is_found(run: runs.Run) -> None:
    run.config_dir.mkdir()
    (run.config_dir / "config.json").write_text(json.dumps({"--logging_dir": "elsewhere/tb"}))
    (run.output_dir / "elsewhere" / "tb").mkdir(parents=True)
    shutil.copy(EVENTS / NAME, run.output_dir / "elsewhere" / "tb")
    assert list(logged(run)) == list(LOSSES)


def test_a_folder_that_runs_share_is_followed_and_not_looked_up_later(run: runs.Run, tmp_path: Path) -> None:
    shared = tmp_path / "tensorboard"
    shared.mkdir()
    run.config_dir.mkdir()
    (run.config_dir / "config.json").write_text(json.dumps({"--logging_dir": str(shared)}))
    events = EventFolder.from_now(run)
    shutil.copy(EVENTS / NAME, shared)
    assert [each.step for each in events.news()] == [1, 2, 3, 4]
    assert logged(run) == {}


def test_a_run_without_losses_in_its_record_has_them_from_tensorboard(run: runs.Run) -> None:
    write(run)
    Journal(run).add("step", step=2, loss=0.25, learning_rate=None)
    known = curves(run)
    assert known.loss == pytest.approx({**LOSSES, 2: 0.25})  # what was recorded counts
    assert known.learning_rate == pytest.approx(RATES)
    assert known.gradient_norm == pytest.approx(NORMS)


def test_a_run_that_only_tensorboard_tells_of_is_watched(run: runs.Run) -> None:
    events = EventFolder.from_now(run)
    watch = Watch(run, Journal(run), events=events)
    write(run)
    watch.tick()
    assert (watch.snapshot.step, watch.snapshot.steps, watch.snapshot.stage) == (4, 4, "Training")
    assert watch.snapshot.gradient_norm == pytest.approx(NORMS[4])
    # The pace is of the times at which it was logged, not of those at which it was read.
    assert watch.snapshot.seconds_per_step == pytest.approx(0.364, abs=0.01)
    assert "grad 0.0518" in watch.snapshot.describe()
    watch.end()
    assert watch.snapshot.stage == "Ended"
    steps = [event for event in read_metrics(run) if event["event"] == "step"]
    assert {event["step"]: event["loss"] for event in steps} == pytest.approx(LOSSES)
    assert {event["step"]: event["gradient_norm"] for event in steps} == pytest.approx(NORMS)


def test_webhooks_come_first_and_an_older_gradient_replaces_no_newer_one(run: runs.Run) -> None:
    watch = Watch(run, Journal(run), events=EventFolder.from_now(run))
    for step in (1, 2, 3, 4):
        watch.hook(Step(step, 4, step / 10, 1e-4, None, gradient_norm=9.0 if step == 4 else None))
    whole = (EVENTS / NAME).read_bytes()
    write(run, whole[: len(whole) // 2])
    watch.tick()
    assert watch.snapshot.gradient_norm == 9.0
    assert curves(run).loss == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}


def test_what_an_earlier_launch_logged_is_no_news_of_this_one(run: runs.Run) -> None:
    write(run)
    watch = Watch(run, Journal(run), events=EventFolder.from_now(run))
    watch.take(Counter(2, 4))
    watch.tick()
    assert (watch.snapshot.step, watch.stepping) == (2, False)
