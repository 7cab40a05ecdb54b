"""From a log to the reason that a run ended, the phase it was in, and what to do next.

The first cause wins, not the last noise: a traceback of the trainer's is followed by its launcher's, and often by those
of things that were shut down. What the run survived (a later stage or step came) is no cause. The table is `causes.py`.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import GpuMemoryError, TrainerError
from fluxkit.process import run
from fluxkit.trainer.causes import CAUSES, CRASHED, HOST_MEMORY, KILLED, OUT_OF_MEMORY, Cause
from fluxkit.trainer.progress import ProgressReader, Step, strip_ansi

_MOST_BYTES = 16 * 2**20
_LAST_LINES = 6
_TAIL = 60  # enough to hold the launcher's traceback, which is let go
_SIGKILL = (-9, 137)  # by the process itself, and as a shell tells it
# Lines that only tell, however frightening their words; and the launchers' own last words.
_HARMLESS = re.compile(r"\[(INFO|DEBUG|WARNING)\]|^\s*(INFO|DEBUG|WARNING)\b|\w*Warning: ")
_NOISE = re.compile(
    r"subprocess\.CalledProcessError|ChildFailedError|Exception ignored|resource_tracker|^[IW]\d{4} \d\d:\d\d:\d\d"
)
_TRACEBACK = "Traceback (most recent call last)"
_STARTING = "starting up"
# Functions of SimpleTuner's that say more in a traceback than the last stage that was printed.
_FRAMES = re.compile(r", in (?P<function>init_resume_checkpoint|checkpoint_state_save|save_state|save_model_hook)$")
_FRAME_PHASES = {"init_resume_checkpoint": "loading the checkpoint"}
_SAVING = "saving a checkpoint"


@dataclass(frozen=True)
class Explanation:
    """Why a run ended.

    Args:
        cause: the row's name; empty where the log says nothing that is known.
        phase: what it was doing.
        message: what is wrong, for people.
        fix: what to do next.
        exit_code: 3, or 5 where memory ran out.
        evidence: the line, or the last lines, that say so.
    """

    cause: str
    phase: str
    message: str
    fix: str
    exit_code: int
    evidence: tuple[str, ...]

    def error(self) -> TrainerError | GpuMemoryError:
        """As an error to raise, with the exit code that belongs to it."""
        kind = GpuMemoryError if self.exit_code == OUT_OF_MEMORY else TrainerError
        return kind(self.message, fix=self.fix)


class Before:
    """What a failure is held against: how things were when the trainer was launched.

    Args:
        log: the run's log.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.bytes = log.stat().st_size if log.is_file() else 0
        self.oom_kills = oom_kills()
        self.seconds = time.clock_gettime(time.CLOCK_BOOTTIME)


def explain(before: Before, *, problem: str, returncode: int | None) -> Explanation:
    """Explain the end of a launch.

    Args:
        before: made at the launch.
        problem: how it is known to have failed, in a sentence; said where the log holds no known cause.
        returncode: the trainer's exit code; None where it was not launched.
    """
    log = before.log
    reading = _Reading()
    for line in _lines(log, before.bytes):
        reading.feed(line)
    where = f"The full log is {log}."
    if reading.found:
        cause, match = reading.found
        return _known(cause, match, reading, where)
    if returncode in _SIGKILL or reading.killed:
        return _killed(reading, where, kernel_says(before))
    last = reading.last_lines()
    crashed = reading.crashed
    if reading.nan_step is not None:
        message = f"The loss stopped being a number (NaN) at step {reading.nan_step}."
        fix = "Lower [train] learning_rate to a half or less, then `fluxkit train --fresh`."
        return Explanation("nan", reading.phase, f"{message} {where}", fix, 3, last)
    how = f"It crashed (SIG{crashed['signal']})" if crashed else "It stopped"
    said = "\n  ".join(("Its last words:", *last)) if last else "It said nothing."
    message = f"{problem} {how} while {reading.phase}. {said}"
    fix = "`fluxkit doctor --bundle` packs what a report needs, without photos, names or tokens."
    return Explanation("", reading.phase, message, fix, 3, last)


class _Reading:
    """What a log's lines add up to."""

    def __init__(self) -> None:
        self._progress = ProgressReader(self._stage, self._step)
        self._stage_name = ""
        self._frame = ""
        self._last_step: Step | None = None
        self._tail: list[str] = []
        self._traceback: list[str] | None = None
        self.found: tuple[Cause, re.Match[str]] | None = None
        self.killed = False
        self.nan_step: int | None = None
        self.crashed: re.Match[str] | None = None

    @property
    def phase(self) -> str:
        """What it was doing, as part of a sentence."""
        if self._frame or self._stage_name:
            return self._frame or self._stage_name
        if self._last_step:
            return f"training, after step {self._last_step.step:,}"
        return _STARTING

    def feed(self, line: str) -> None:
        text = strip_ansi(line).rstrip()
        self._progress.feed(text)
        if not text:
            return
        self._collect(text)
        frame = _FRAMES.search(text)
        if frame and not self.found:
            self._frame = _FRAME_PHASES.get(frame["function"], _SAVING)
        self.crashed = CRASHED.search(text) or self.crashed
        if KILLED.search(text):
            self.killed = True
        if self.found is None and not _HARMLESS.search(text):
            self.found = next(((cause, found) for cause in CAUSES if (found := cause.pattern.search(text))), None)

    def last_lines(self) -> tuple[str, ...]:
        """The end of the first traceback since the last sign of life; where there is none, the log's last lines."""
        lines = self._traceback or self._tail
        return tuple(line.strip()[:300] for line in lines[-_LAST_LINES:])

    def _collect(self, text: str) -> None:
        if _NOISE.search(text):
            self._drop_unended()
            return
        self._tail = [*self._tail[-_TAIL:], text]
        if self._traceback is None:
            self._traceback = [text] if _TRACEBACK in text else None
        elif not _ended(self._traceback):
            self._traceback.append(text)

    def _drop_unended(self) -> None:
        """Let go of the traceback that ends in noise: the launcher's."""
        if self._traceback and not _ended(self._traceback):
            self._traceback = None
        starts = [i for i, line in enumerate(self._tail) if _TRACEBACK in line]
        if starts and not _ended(self._tail[starts[-1] :]):
            self._tail = self._tail[: starts[-1]]

    def _alive(self) -> None:
        self._frame = ""
        self.found, self._traceback, self.killed, self.crashed = None, None, False, None

    def _stage(self, name: str) -> None:
        self._stage_name = f"{name[0].lower()}{name[1:]}"
        self._alive()

    def _step(self, step: Step) -> None:
        if step.loss is not None and step.loss != step.loss and self.nan_step is None:
            self.nan_step = step.step
        if self._last_step is None or step.step > self._last_step.step:
            self._last_step, self._stage_name = step, ""
            self._alive()


def _ended(traceback: list[str]) -> bool:
    """Whether the exception's own line is there: the first one that is not indented."""
    return len(traceback) > 1 and not traceback[-1].startswith(" ")


def _lines(log: Path, start: int) -> Iterator[str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - _MOST_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return
    yield from re.split(r"[\r\n]+", text)


def _known(cause: Cause, match: re.Match[str], reading: _Reading, where: str) -> Explanation:
    fix = next((fix for word, fix in cause.by_phase.items() if word in reading.phase.lower()), cause.fix)
    facts = {name: value for name, value in match.groupdict().items() if value}
    details = f" ({', '.join(f'{name} {value}' for name, value in facts.items())})" if facts else ""
    message = f"{cause.message[:-1]}{details}: it stopped while {reading.phase}. {where}"
    return Explanation(cause.name, reading.phase, message, fix, cause.exit_code, (match.string.strip()[:300],))


def _killed(reading: _Reading, where: str, proof: str) -> Explanation:
    why = "because the computer's memory (RAM) ran out" if proof else "most likely because the memory (RAM) ran out"
    message = f"The system ended the trainer (SIGKILL) while {reading.phase}, {why}. {where}"
    return Explanation("killed", reading.phase, message, HOST_MEMORY.fix, OUT_OF_MEMORY, (proof,) if proof else ())


def kernel_says(before: Before, root: Path = Path("/sys/fs/cgroup")) -> str:
    """The kernel's own word that it ended a process for want of memory since then; empty where it has none for us."""
    if oom_kills(root) > before.oom_kills:
        return "memory.events counts it (oom_kill)"
    for line in run(["dmesg"], timeout=5).stdout.splitlines():  # not everybody may read it
        found = re.match(r"\[\s*(\d+\.\d+)\].*(?:Out of memory|out of memory): Killed process", line)
        if found and float(found[1]) >= before.seconds:
            return line
    return ""


def oom_kills(root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this container or session the kernel ended for want of memory; 0 where it doesn't say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            found = re.search(r"^oom_kill (\d+)$", (root / name).read_text(encoding="ascii"), re.MULTILINE)
        except (OSError, UnicodeDecodeError):
            continue
        if found:
            return int(found[1])
    return 0
