"""The one place where fluxkit starts other programs: argv lists, an explicit environment; `ending.py` ends them."""

import contextlib
import os
import select
import signal
import subprocess  # noqa: TID251  # this is the wrapper that the ban points to
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fluxkit import ending
from fluxkit.ending import end, signal_group
from fluxkit.errors import InterruptedByUser

TICK_SECONDS = 0.5
NOT_STARTED = 127  # what a shell returns for a command that isn't there


@dataclass(frozen=True)
class Completed:
    """What a program left: its exit code and its output as text."""

    returncode: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Completed:
    """Run a short program to its end and return what it wrote.

    Args:
        argv: the command; a program that can't be started gives exit code 127 and the reason in `stderr`.
        cwd: its working folder.
        env: its whole environment; this process's own by default.
        timeout: seconds after which its whole group is killed; the exit code is then -9.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = _start(argv, cwd=cwd, env=os.environ if env is None else env, stdout=out, stderr=err)
        except OSError as error:
            return Completed(NOT_STARTED, "", f"{argv[0]} can't be started: {error.strerror or error}")
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            signal_group(child, signal.SIGKILL)
            child.wait()
        except BaseException:
            end(child, interrupt_seconds=0)
            raise
        return Completed(child.returncode, _text(out), _text(err))


def stream(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    log: Path,
    whole_group: bool = False,
    on_tick: Callable[[], bool] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> int:
    r"""Run a long program, hand over each line as it comes, keep everything in `log`.

    Lines end at `\n` or `\r` (progress bars); stdout and stderr are one stream, in the order written.

    Args:
        argv: the command; one that can't be started returns 127, the reason in the log.
        cwd: its working folder.
        env: its whole environment.
        on_line: called with each line that isn't empty, without its end.
        log: file that gets the raw bytes, appended.
        whole_group: whether a Ctrl-C is passed on to every process that the program started, as a terminal would.
        on_tick: called about twice a second, whatever the program says; True stops the program as Ctrl-C does.
        on_start: called with the program's process id, which is its group's and its session's too.

    Returns:
        The exit code; negative for a signal.

    Raises:
        InterruptedByUser: Ctrl-C; the program was asked to stop (SIGINT), then made to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as record:
        child: subprocess.Popen[bytes] | None = None
        try:
            with _signals_held_back():
                child = _start(argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if on_start:
                on_start(child.pid)
            _pump(child, record, on_line, on_tick)
            return child.wait()
        except KeyboardInterrupt as stop:
            if child:
                _interrupt(child, record, whole_group=whole_group)
            raise InterruptedByUser("Stopped.") from stop
        except BaseException as error:
            if child:
                end(child, interrupt_seconds=0)
            elif isinstance(error, OSError):
                message = f"{argv[0]} can't be started: {error.strerror or error}"
                record.write(f"{message}\n".encode())
                on_line(message)
                return NOT_STARTED
            raise
        finally:
            if child and child.stdout:
                child.stdout.close()


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """What a signal would raise is raised at the end: in the middle of a start it would leave a program to nobody."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        for each in came:
            signal.raise_signal(each)


def _start(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    stdout: int | BinaryIO,
    stderr: int | BinaryIO,
) -> "subprocess.Popen[bytes]":
    # A session of its own: the terminal's Ctrl-C reaches fluxkit alone, which then decides who is told what.
    return subprocess.Popen(
        [str(part) for part in argv],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _pump(
    child: "subprocess.Popen[bytes]",
    record: BinaryIO,
    on_line: Callable[[str], None],
    on_tick: Callable[[], bool] | None,
) -> None:
    rest = b""
    for block in _blocks(child, on_tick):
        record.write(block)
        *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if line:
                on_line(line.decode("utf-8", "replace"))
    if rest:
        on_line(rest.decode("utf-8", "replace"))


def _blocks(child: "subprocess.Popen[bytes]", on_tick: Callable[[], bool] | None = None) -> Iterator[bytes]:
    if child.stdout is None:
        return
    output = child.stdout.fileno()
    ticked = time.monotonic()
    while True:
        if on_tick and time.monotonic() - ticked >= TICK_SECONDS:
            ticked = time.monotonic()
            if on_tick():
                raise KeyboardInterrupt
        if on_tick and not select.select([output], [], [], TICK_SECONDS)[0]:
            continue
        block = os.read(output, 65536)
        if not block:
            return
        yield block


def _interrupt(child: "subprocess.Popen[bytes]", record: BinaryIO, *, whole_group: bool) -> None:
    """End the program, its last words still going to the log: a full pipe would keep it from ending."""
    drain = threading.Thread(target=lambda: [record.write(block) for block in _blocks(child)], daemon=True)
    drain.start()
    end(child, interrupt_seconds=ending.INTERRUPT_SECONDS, whole_group=whole_group)
    drain.join(5)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


@dataclass(frozen=True)
class Background:
    """A program that lives on when this one ends.

    Args:
        pid: its process id.
        poll: its exit code, or None while it runs.
    """

    pid: int
    poll: Callable[[], int | None]


def start_in_background(argv: Sequence[str | Path], *, env: Mapping[str, str], log: Path) -> Background:
    """Start a program in a session of its own, without a terminal: closing this one doesn't end it.

    Args:
        argv: the command.
        env: its whole environment.
        log: file that gets its output, appended.

    Raises:
        OSError: it can't be started, or the log can't be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as record:
        child = _start(argv, cwd=None, env=env, stdout=record, stderr=subprocess.STDOUT)
    return Background(child.pid, child.poll)
