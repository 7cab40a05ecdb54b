import io
import os
import sys

import pytest

from fluxkit.commands.live import Live
from fluxkit.console import Output
from fluxkit.trainer import events
from fluxkit.trainer.metrics import Snapshot
from fluxkit.trainer.progress import strip_ansi

STEP = Snapshot(stage=events.TRAINING, step=1234, steps=10000, smoothed=0.4321, seconds_per_step=1.59, checkpoint=1000)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_for(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stdout a terminal of 40 columns; not in a fixture: pytest sets its own stdout when the test begins."""
    screen = Terminal()
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 20)))
    monkeypatch.setattr(sys, "stdout", screen)
    return screen


def test_on_a_terminal_the_line_rewrites_itself_and_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    live = Live(Output())
    live.show(Snapshot(stage="Encoding captions", done=12, total=40))
    live.show(STEP)
    live.end()
    printed = terminal.getvalue()
    assert "\r\x1b[2K  Encoding captions 12/40" in printed
    last = printed.split("\x1b[2K")[-1]
    assert last == "  step 1,234/10,000 · loss 0.4321 · 1.5\n"
    assert len(last.rstrip("\n")) < 40


def test_a_line_that_stays_begins_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    live = Live(Output())
    live.show(STEP)
    live.show(Snapshot(stage="Saving a checkpoint"))
    assert "1.5\n  Saving a checkpoint …\n" in strip_ansi(terminal.getvalue())


def test_elsewhere_it_says_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(Output())
    for step in (1, 2, 3):
        live.show(Snapshot(stage=events.TRAINING, step=step, steps=3))
    assert capsys.readouterr().out.splitlines() == ["  step 1/3", "  step 3/3"]


@pytest.mark.parametrize("out", [Output(verbosity=-1), Output(as_json=True)])
def test_quiet_and_json_keep_stdout_clean(out: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch)
    live = Live(out)
    live.show(STEP)
    live.end()
    assert terminal.getvalue() == ""


def test_images_that_were_there_before_are_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(Output())
    live.show(Snapshot(images=("a.png",), validation=2))
    assert "Validation images" not in capsys.readouterr().out
    live.show(Snapshot(images=("b.png", "c.png"), validation=4))
    assert "Validation images of step 4: 2" in capsys.readouterr().out
