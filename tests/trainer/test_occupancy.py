import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from fluxkit.errors import UserError
from fluxkit.trainer import runs
from fluxkit.trainer.occupancy import LOCK_FILE, holder_of, occupy, orphan, status_of
from tests.trainer.test_runs import RECORD

HOLD = """
import sys, time
from pathlib import Path
from fluxkit.trainer.occupancy import occupy
with occupy(Path(sys.argv[1])) as occupancy:
    occupancy.name(sys.argv[2])
    if len(sys.argv) > 3:
        occupancy.launched(int(sys.argv[3]))
    print("held", flush=True)
    time.sleep(60)
"""


def hold(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Another fluxkit that trains in the project."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), *arguments], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def end(other: "subprocess.Popen[str]") -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()


def test_a_second_trainer_is_told_which_run_is_on(tmp_path: Path) -> None:
    other = hold(tmp_path, "20261124-007")
    try:
        with pytest.raises(
            UserError, match=f"Run 20261124-007 is training in this project .process {other.pid} "
        ) as no:
            occupy(tmp_path).__enter__()
        assert "fluxkit attach" in no.value.fix
        holder = holder_of(tmp_path)
        assert holder is not None
        assert (holder.run, holder.pid, holder.here) == ("20261124-007", other.pid, True)
    finally:
        end(other)


def test_one_that_was_killed_holds_nothing_and_its_run_died(tmp_path: Path) -> None:
    run = runs.new_run(tmp_path / "runs", RECORD).update(status="running")
    other = hold(tmp_path, run.record.id)
    assert status_of(run, holder_of(tmp_path)) == "running"
    end(other)
    assert holder_of(tmp_path) is None
    assert status_of(run, None) == "died"
    with occupy(tmp_path) as mine:
        mine.name("20261124-008")
        # An older run that says that it runs is not the one that does.
        assert status_of(run, holder_of(tmp_path)) == "died"


def test_anothers_glance_at_the_lock_is_not_taken_for_a_trainer(tmp_path: Path) -> None:
    killed = hold(tmp_path, "20261124-007")
    end(killed)  # its note is left behind
    glance = FileLock(tmp_path / LOCK_FILE, thread_local=False)
    glance.acquire()
    threading.Timer(0.3, glance.release).start()
    assert holder_of(tmp_path) is None


def test_a_run_that_ended_in_order_is_what_its_record_says(tmp_path: Path) -> None:
    for status in ("finished", "failed", "interrupted"):
        run = runs.new_run(tmp_path / "runs", RECORD).update(status=status)
        assert status_of(run, None) == status


def test_leaving_lets_the_next_one_in(tmp_path: Path) -> None:
    for _ in range(2):
        with occupy(tmp_path) as mine:
            mine.name("20261124-001")
    with pytest.raises(ZeroDivisionError), occupy(tmp_path):
        raise ZeroDivisionError
    assert holder_of(tmp_path) is None
    with occupy(tmp_path):
        pass


def test_a_trainer_that_lost_its_fluxkit_keeps_the_next_one_out(tmp_path: Path) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        end(hold(tmp_path, "20261124-003", str(trainer.pid)))
        with pytest.raises(UserError, match=f"run 20261124-003 still runs .process {trainer.pid}"):
            occupy(tmp_path).__enter__()
        left = orphan(tmp_path)
        assert left is not None
        assert left.trainer == trainer.pid
    finally:
        trainer.kill()
        trainer.wait()
    assert orphan(tmp_path) is None
    with occupy(tmp_path):
        pass


def test_a_process_that_got_the_number_later_is_not_taken_for_the_trainer(tmp_path: Path) -> None:
    record = {"run": "x", "pid": 1, "host": os.uname().nodename, "trainer": os.getpid(), "trainer_started": 12.0}
    (tmp_path / ".fluxkit-train.json").write_text(json.dumps(record))
    assert orphan(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mood": 1}', "null"])
def test_a_damaged_note_of_the_holder_harms_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".fluxkit-train.json").write_text(text)
    assert orphan(tmp_path) is None
    with occupy(tmp_path):
        pass
