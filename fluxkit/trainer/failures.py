"""From a log to the reason that a run ended, the phase it was in, and what to do next.

The first cause wins, not the last noise: a traceback of the trainer's is followed by its launcher's, and often by those
of things that were shut down. What the run survived (a later stage or step came) is no cause. The table is `causes.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import GpuMemoryError, TrainerError
from fluxkit.trainer.causes import CAUSES, CRASHED, KILLED, OUT_OF_MEMORY, Cause
from fluxkit.trainer.progress import ProgressReader, Step, strip_ansi

_MOST_BYTES = 16 * 2**20
_LAST_LINES = 6
_SIGKILL = (-9, 137)  # by the process itself, and as a shell tells it
# Lines that only tell, however frightening their words; and the launchers' own last words.
_HARMLESS = re.compile(r"\[(INFO|DEBUG|WARNING)\]|^\s*(INFO|DEBUG|WARNING)\b|\w*Warning: ")
_NOISE = re.compile(r"subprocess\.CalledProcessError|ChildFailedError|Exception ignored|resource_tracker")
_TRACEBACK = "Traceback (most recent call last)"
_STARTING = "starting up"


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


def explain(log: Path, *, start: int, returncode: int | None) -> Explanation:
    """Explain the end of a launch.

    Args:
        log: the run's log.
        start: where this launch's output begins in it, in bytes.
        returncode: the trainer's exit code; None where it was not launched.
    """
    reading = _Reading()
    for line in _lines(log, start):
        reading.feed(line)
    where = f"The full log is {log}."
    if reading.found:
        cause, match = reading.found
        return _known(cause, match, reading, where)
    if returncode in _SIGKILL or reading.killed:
        return _killed(reading, where)
    last = reading.last_lines()
    crashed = CRASHED.search(reading.end)
    if reading.nan_step is not None:
        message = f"The loss stopped being a number (NaN) at step {reading.nan_step}."
        fix = "Lower [train] learning_rate to a half or less, then `fluxkit train --fresh`."
        return Explanation("nan", reading.phase, f"{message} {where}", fix, 3, last)
    how = f"crashed (SIG{crashed['signal']})" if crashed else f"failed with exit code {returncode}"
    if returncode == 0:
        how = "ended too early, without an error"
    said = "\n  ".join(("It said last:", *last)) if last else "It said nothing."
    message = f"SimpleTuner {how} while {reading.phase}. {where}\n  {said}"
    fix = "`fluxkit doctor --bundle` packs what a report needs, without photos, names or tokens."
    return Explanation("", reading.phase, message, fix, 3, last)


class _Reading:
    """What a log's lines add up to."""

    def __init__(self) -> None:
        self._progress = ProgressReader(self._stage, self._step)
        self._stage_name = ""
        self._last_step: Step | None = None
        self._tail: list[str] = []
        self._traceback: list[str] | None = None
        self.found: tuple[Cause, re.Match[str]] | None = None
        self.killed = False
        self.nan_step: int | None = None
        self.end = ""

    @property
    def phase(self) -> str:
        """What it was doing, as part of a sentence."""
        if self._stage_name:
            return self._stage_name
        if self._last_step:
            return f"training, after step {self._last_step.step:,}"
        return _STARTING

    def feed(self, line: str) -> None:
        text = strip_ansi(line).rstrip()
        self._progress.feed(text)
        if not text:
            return
        self.end = text
        self._collect(text)
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
            return
        self._tail = [*self._tail[-_LAST_LINES:], text]
        if self._traceback is None:
            self._traceback = [text] if _TRACEBACK in text else None
        elif not _ended(self._traceback):
            self._traceback.append(text)

    def _alive(self) -> None:
        self.found, self._traceback, self.killed = None, None, False

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


def _killed(reading: _Reading, where: str) -> Explanation:
    count = oom_kills()
    proof = "the kernel's count says so" if count else "nothing else usually does that"
    message = (
        f"The system ended the trainer (SIGKILL) while {reading.phase}: "
        f"the computer's memory (RAM) ran out, {proof}. {where}"
    )
    cause = next(cause for cause in CAUSES if cause.name == "host-memory")
    return Explanation("killed", reading.phase, message, cause.fix, OUT_OF_MEMORY, (reading.end,))


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
