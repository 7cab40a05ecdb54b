"""How a program that fluxkit started is ended: asked, told, killed, and nothing of it left behind."""

import contextlib
import os
import signal
import subprocess  # noqa: TID251  # process.py's other half
import time
from collections.abc import Callable
from pathlib import Path

import psutil

INTERRUPT_SECONDS = 60.0  # SimpleTuner ends the step it is in and its own child group; a large model takes a while
TERMINATE_SECONDS = 10.0


def end(child: "subprocess.Popen[bytes]", *, interrupt_seconds: float, whole_group: bool = False) -> None:
    """SIGINT to the program alone (SimpleTuner's launcher then ends its own children), then its group: TERM, KILL.

    In the end nothing that it started is left, in whatever session: SimpleTuner's launcher and torch's give their
    children sessions of their own, which no signal to the group reaches, and which would go on and hold the GPU.

    With `whole_group` SIGINT goes to the group too, and the program has ended when all of it has: a shell or
    accelerate may be gone before the trainer has finished what it was writing.
    """
    steps: list[tuple[Callable[[], None], float]] = [
        (lambda: signal_group(child, signal.SIGTERM), TERMINATE_SECONDS),
        (lambda: signal_group(child, signal.SIGKILL), TERMINATE_SECONDS),
    ]
    if interrupt_seconds and whole_group:
        steps.insert(0, (lambda: signal_group(child, signal.SIGINT), interrupt_seconds))
    elif interrupt_seconds:
        steps.insert(0, (lambda: child.send_signal(signal.SIGINT), interrupt_seconds))
    started = _descendants(child.pid)
    for send, seconds in steps:
        started |= _descendants(child.pid)
        send()
        # A second Ctrl-C means: now. It skips to the next, harder step.
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            deadline = time.monotonic() + seconds
            child.wait(seconds)
            if whole_group and _group_lives_on(child.pid, deadline):
                continue
            break
    # What the program left behind, in its session and elsewhere. psutil knows a process that took a dead one's number.
    signal_group(child, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _descendants(pid: int) -> "set[psutil.Process]":
    """All that a program started, and that those started, as far as they can be seen now."""
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return set()


def _group_lives_on(group: int, deadline: float) -> bool:
    """Wait for the last process of a group, until `deadline` (monotonic); whether one is left then."""
    while _members(group):
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.05)
    return False


def _members(group: int) -> bool:
    """Whether a group has a process that runs; one that ended and that nobody asked about (a zombie) doesn't count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name) state parent group …; the name may hold anything, brackets too.
            state, _, of_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False


def signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """A signal to every process of the program's group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def end_children() -> None:
    """Kill every process that this one started, and theirs, in whatever session they are."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone by now
            child.kill()
