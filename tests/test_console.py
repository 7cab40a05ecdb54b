import io
import json

import pytest
from rich.console import Console

from fluxkit.console import Output, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, café 写真 😀", "plain, café 写真 😀"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x9b0m\x7f", "\\x1b[31mred\\x9b0m\\x7f"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u2028b\u200bc\ufeff", "a\\u2028b\\u200bc\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("bytes \udcff\udc80", "bytes \\xff\\x80"),
        ("half \ud83d", "half \\ud83d"),
        ("new \U00018d09", "new \U00018d09"),  # not in Python's tables yet: a letter, no command
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["x\x1b[2Jy", "gpj.\u202eexe", "\x9b31m", "\udcff", "\U000e0041", "a\nb", '"\\', "é😀"]
)
def test_json_arrives_unchanged_and_holds_nothing_that_a_terminal_obeys(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Output(as_json=True).emit({"name": text})
    written = capsys.readouterr().out
    assert json.loads(written) == {"name": text}
    written.encode("utf-8")
    assert not {"\x1b", "\x9b", "\u202e", "\U000e0041"} & set(written)


def test_no_bar_without_a_terminal_or_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    with Output().progress("Looking") as report:
        assert report is None
    terminal = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(Output, "console", lambda _: terminal)
    with Output(verbosity=-1).progress("Looking") as report:
        assert report is None


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(Output, "console", lambda _: terminal)
    with Output().progress("Looking at the photos") as report:
        assert report is not None
        report(3, 7)
    assert "Looking at the photos" in screen.getvalue()
    assert "3/7" in screen.getvalue()
