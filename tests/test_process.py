import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkit import ending, process
from fluxkit.errors import InterruptedByUser


def run_stream(code: str, tmp_path: Path, on_line: Callable[[str], None]) -> int:
    argv = [sys.executable, "-u", "-c", code]
    return process.stream(argv, cwd=tmp_path, env={"A": "1"}, on_line=on_line, log=tmp_path / "logs" / "log.txt")


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def interrupt_on_ready(pids: list[int]) -> Callable[[str], None]:
    def on_line(line: str) -> None:
        if line.startswith("ready"):
            pids.extend(int(part) for part in line.split()[1:])
            raise KeyboardInterrupt

    return on_line


def test_run_returns_code_and_both_outputs(tmp_path: Path) -> None:
    code = "import os,sys; print(os.getcwd(), sorted(os.environ)); sys.stderr.write('e'); sys.exit(3)"
    done = process.run([sys.executable, "-c", code], cwd=tmp_path, env={"ONLY": "this"})
    assert (done.returncode, done.stderr) == (3, "e")
    assert str(tmp_path) in done.stdout
    assert "ONLY" in done.stdout
    assert "HOME" not in done.stdout


def test_run_kills_what_takes_too_long() -> None:
    assert process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.5).returncode == -signal.SIGKILL


def test_missing_program_is_a_result_not_a_traceback(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    assert process.run([tmp_path / "no"]).returncode == process.NOT_STARTED
    assert process.stream([tmp_path / "no"], cwd=tmp_path, env={}, on_line=lines.append, log=log) == process.NOT_STARTED
    assert lines == log.read_text().splitlines() != []


def test_stream_splits_at_both_line_ends_and_logs_raw(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os,sys; os.write(1, b'a\\rb\\n'); os.write(2, b'c\\xff\\r\\n'); os.write(1, b'last'); sys.exit(5)"
    assert run_stream(code, tmp_path, lines.append) == 5
    assert lines == ["a", "b", "c\ufffd", "last"]
    assert (tmp_path / "logs" / "log.txt").read_bytes() == b"a\rb\nc\xff\r\nlast"


def test_interrupt_asks_the_program_itself_and_keeps_its_last_words(tmp_path: Path) -> None:
    code = (
        "import os,time\n"
        "try:\n print('ready', os.getpid()); time.sleep(60)\n"
        "except KeyboardInterrupt:\n print('x' * 300000); print('saved')\n"
    )
    pids: list[int] = []
    with pytest.raises(InterruptedByUser):
        run_stream(code, tmp_path, interrupt_on_ready(pids))
    assert gone(pids[0])
    assert (tmp_path / "logs" / "log.txt").read_text().endswith("saved\n")


def test_deaf_program_and_its_children_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "INTERRUPT_SECONDS", 0.3)
    monkeypatch.setattr(ending, "TERMINATE_SECONDS", 0.3)
    code = (
        "import os,signal,subprocess,sys,time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('ready', os.getpid(), child.pid); time.sleep(60)\n"
    )
    pids: list[int] = []
    with pytest.raises(InterruptedByUser):
        run_stream(code, tmp_path, interrupt_on_ready(pids))
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_what_is_in_another_session_is_not_left_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SimpleTuner's launcher and torch's start their children so; this one is too deaf to end them itself."""
    monkeypatch.setattr(ending, "INTERRUPT_SECONDS", 0.2)
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = subprocess.Popen(sleep, start_new_session=True); print(child.pid); time.sleep(60)"
    )
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(InterruptedByUser):
        run_stream(code, tmp_path, stop)
    assert gone(pids[0])


def test_a_shells_child_is_asked_too_and_is_waited_for(tmp_path: Path) -> None:
    # The shell and the middle one end at once; the last one takes its time to save.
    trainer = (
        "import os,time\n"
        "try:\n print('ready', os.getpid(), flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n time.sleep(0.5); print('saved', flush=True)\n"
    )
    middle = "import subprocess,sys; subprocess.Popen([sys.executable, sys.argv[1]]).wait()"
    (tmp_path / "trainer.py").write_text(trainer)
    (tmp_path / "train.sh").write_text(f'"{sys.executable}" -c "{middle}" trainer.py\nexit 0\n')
    pids: list[int] = []
    with pytest.raises(InterruptedByUser):
        process.stream(
            ["bash", "-e", "train.sh"],
            cwd=tmp_path,
            env=dict(os.environ),
            on_line=interrupt_on_ready(pids),
            log=tmp_path / "log.txt",
            whole_group=True,
        )
    assert gone(pids[0])
    assert (tmp_path / "log.txt").read_text().endswith("saved\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_start_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    start, started = subprocess.Popen.__init__, []

    def interrupted(self: Any, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        started.append(self.pid)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess.Popen, "__init__", interrupted)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as while a training is supervised
    try:
        with pytest.raises(InterruptedByUser):
            run_stream("import time; time.sleep(60)", tmp_path, lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert gone(started[0])


def test_real_ctrl_c_while_waiting(tmp_path: Path) -> None:
    # Armed once the program runs: a key pressed before would end the tests.
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(InterruptedByUser):
        run_stream("import time; print('up'); time.sleep(60)", tmp_path, lambda _: timer.start())
    timer.join()
