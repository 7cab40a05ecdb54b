"""Runs that start side by side and train one after another.

A launch of the trainer spends most of a short run on imports, caches and quantizing, of which nothing is timed. Runs
that are started together overlap all that; each then waits until it is the only one that trains (`Turn` in
`fluxkit/trainer/_shims/measure.py`), so that seconds a step are those of a card and a machine to itself. Peaks are the
allocator's own, and each process has its own.

A run asks by a file for each part of its work. Encoding is for a few at once: T5 and the VAE take 18 GiB of the card
each. Loading is for one: quantizing wants every core, and RAM for a bf16 model. Training is for one while nobody
encodes or loads. How it ends is nobody's business: the next one trains while it still writes and frees its memory.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fluxkit.ending import end

POLL_SECONDS = 0.2
PARTS = ("encode", "load", "train")
_Running = Mapping[str, "subprocess.Popen[bytes]"]


def take_turns(
    commands: Mapping[str, Sequence[str]],
    folder: Path,
    *,
    say: Callable[[str], None],
    between: float = 0.0,
    start_seconds: float = 600.0,
    at_once: int = 4,
    seconds: float | None = None,
) -> dict[str, int]:
    """Start the commands, let each train alone, and return their exit codes by name.

    Args:
        commands: by name, the most important first; each must measure with the turn `folder/name`.
        folder: for the files by which they take turns.
        say: told what goes on.
        between: seconds between two starts, so that they don't want the same at the same moment.
        start_seconds: from then on those that are ready train, and the others don't prepare meanwhile.
        at_once: how many may encode at the same time.
        seconds: after which all are told to stop (`<name>.stop`), and to keep what they have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    running: dict[str, subprocess.Popen[bytes]] = {}
    begin = time.monotonic()
    try:
        for name, argv in commands.items():
            with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
                running[name] = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            time.sleep(between)
        return _watch(running, folder, say, (begin, start_seconds, at_once, seconds))
    finally:
        for process in running.values():  # an interrupt, or an error of ours: nobody waits for a word that won't come
            if process.poll() is None:
                end(process, interrupt_seconds=0)


def _watch(
    running: _Running, folder: Path, say: Callable[[str], None], limits: tuple[float, float, int, float | None]
) -> dict[str, int]:
    begin, start_seconds, at_once, seconds = limits
    codes: dict[str, int] = {}
    while len(codes) < len(running):
        passed = time.monotonic() - begin
        for name, process in running.items():
            if name not in codes and (code := process.poll()) is not None:
                codes[name] = code
                say((folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip())
                say(f"{name}: exit {code}, {passed:.0f} s since the start")
        if seconds is not None and passed > seconds:
            for name in running:
                (folder / f"{name}.stop").touch()
        for name, part in _words(running, folder, late=passed > start_seconds, at_once=at_once):
            (folder / f"{name}.{part}.go").touch()
            say(f"{name}: {part}, {passed:.0f} s since the start")
        time.sleep(POLL_SECONDS)
    return codes


def _words(running: _Running, folder: Path, *, late: bool, at_once: int) -> list[tuple[str, str]]:
    """Who may begin with what now."""
    where = {name: _where(folder, name) for name, process in running.items() if process.poll() is None}
    at = {part: [name for name, place in where.items() if place == (part, True)] for part in PARTS}
    wants = {part: [name for name, place in where.items() if place == (part, False)] for part in PARTS}
    if at["train"]:
        return []
    busy = bool(at["encode"] or at["load"])
    waiting = any(place[0] in ("", "encode", "load") for place in where.values())
    if wants["train"] and not busy and (late or not waiting):
        return [(wants["train"][0], "train")]
    if wants["train"] and late:
        return []
    encode = wants["encode"][: max(0, at_once - len(at["encode"]))]
    load = [] if at["load"] else wants["load"][:1]
    return [(name, "encode") for name in encode] + [(name, "load") for name in load]


def _where(folder: Path, name: str) -> tuple[str, bool]:
    """The part that a run asked for last, and whether it has the word; `done` where it needs the card no more."""
    if (folder / f"{name}.done").exists():
        return "done", True
    for part in reversed(PARTS):
        if (folder / f"{name}.{part}").exists():
            return part, (folder / f"{name}.{part}.go").exists()
    return "", False
