"""Who takes turns: little programs that ask for each part of the work, and note when they had it."""

import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.turns import take_turns

# As the trainer with the probe: it starts, encodes, loads, trains, says that the card is free, and ends. What is to
# happen at the same time or afterwards waits for the other's line, not for a clock.
ASKS = """
import sys, time, pathlib
turn, until = pathlib.Path(sys.argv[1]), dict(word.split("=") for word in sys.argv[2:])
def lines():
    try:
        return (turn.parent / "order").read_text().splitlines()
    except FileNotFoundError:
        return []
def note(what):
    with (turn.parent / "order").open("a") as order:
        order.write(f"{turn.name} {what}\\n")
def wait(when):
    given_up = time.monotonic() + 60
    while not when() and time.monotonic() < given_up:
        if turn.with_suffix(".stop").exists():
            note("stopped"); sys.exit(4)
        time.sleep(0.02)
def after(part):
    if part in until:
        wait(lambda: any(line.endswith(until[part].replace("_", " ")) for line in lines()))
after("start")
for part in ("encode", "load", "train"):
    turn.with_suffix("." + part).touch()
    wait(turn.with_suffix(f".{part}.go").exists)
    note(part); after(part); time.sleep(0.1); note(part + " over")
turn.with_suffix(".done").touch()
after("end")
note("ends")
"""


def commands(folder: Path, **until: str) -> dict[str, list[str]]:
    """Runs by name, each with the lines of others that it waits for: `part=line`, with `_` for a space."""
    return {name: [sys.executable, "-c", ASKS, str(folder / name), *line.split()] for name, line in until.items()}


def order(folder: Path) -> list[str]:
    return (folder / "order").read_text().splitlines()


def most(lines: list[str], part: str) -> int:
    """How many did a part at the same time."""
    now, found = 0, 0
    for line in lines:
        now += {part: 1, f"{part} over": -1}.get(line.split(" ", 1)[1], 0)
        found = max(found, now)
    return found


def test_nobody_trains_beside_another_and_the_first_named_comes_first(tmp_path: Path) -> None:
    # `a` starts when `b` encodes, and `b` encodes until `a` does.
    runs = commands(tmp_path, a="start=b_encode", b="encode=a_encode", c="start=a_encode")
    codes = take_turns(runs, tmp_path, say=lambda _: None, at_once=2)
    assert codes == {"a": 0, "b": 0, "c": 0}
    lines = order(tmp_path)
    assert (most(lines, "encode"), most(lines, "load"), most(lines, "train")) == (2, 1, 1)
    trained = lines[lines.index("a train") :]
    assert [line for line in trained if "ends" not in line] == [f"{x} train{o}" for x in "abc" for o in ("", " over")]


def test_the_next_one_trains_while_one_is_still_ending(tmp_path: Path) -> None:
    runs = commands(tmp_path, a="end=b_train", b="")
    assert take_turns(runs, tmp_path, say=lambda _: None) == {"a": 0, "b": 0}
    lines = order(tmp_path)
    assert lines.index("b train") < lines.index("a ends")


def test_one_that_fails_at_the_start_keeps_nobody_waiting(tmp_path: Path) -> None:
    said: list[str] = []
    both = {"broken": [sys.executable, "-c", "import sys; print('no CUDA'); sys.exit(3)"], **commands(tmp_path, b="")}
    assert take_turns(both, tmp_path, say=said.append) == {"broken": 3, "b": 0}
    assert "no CUDA" in said
    assert "b train over" in order(tmp_path)


def test_one_that_fails_while_it_trains_gives_its_turn_back(tmp_path: Path) -> None:
    dies = ASKS.replace("note(part); after", 'part == "train" and sys.exit(9); note(part); after')
    both = {"a": [sys.executable, "-c", dies, str(tmp_path / "a")], **commands(tmp_path, b="")}
    assert take_turns(both, tmp_path, say=lambda _: None) == {"a": 9, "b": 0}


def test_one_that_is_not_ready_in_time_comes_last_and_prepares_when_nobody_trains(tmp_path: Path) -> None:
    runs = commands(tmp_path, late="start=c_train", b="", c="")  # it asks while `c` trains
    take_turns(runs, tmp_path, say=lambda _: None, start_seconds=1)
    lines = order(tmp_path)
    assert lines.index("c train over") < lines.index("late train")
    for begin in [at for at, line in enumerate(lines) if line.endswith(" train")]:
        assert lines[begin + 1].endswith(("train over", "ends"))  # nothing else began meanwhile


def test_when_the_time_is_over_all_are_told_and_those_that_wait_end(tmp_path: Path) -> None:
    runs = commands(tmp_path, a="", never="start=nothing")
    codes = take_turns(runs, tmp_path, say=lambda _: None, seconds=1)
    assert codes["never"] == 4
    assert "never stopped" in order(tmp_path)


def test_an_error_leaves_no_process_behind(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise KeyboardInterrupt

    number = tmp_path / "pid"
    new = tmp_path / "new"
    waits = f"import os, pathlib, time; new = pathlib.Path({str(new)!r}); new.write_text(str(os.getpid())); "
    waits += f"new.rename({str(number)!r}); time.sleep(60)"
    ends = f"import pathlib, time\nwhile not pathlib.Path({str(number)!r}).exists(): time.sleep(0.02)"
    both = {"waits": [sys.executable, "-c", waits], "ends": [sys.executable, "-c", ends]}
    with pytest.raises(KeyboardInterrupt):
        take_turns(both, tmp_path / "turns", say=fail)
    assert not psutil.pid_exists(int(number.read_text()))
