"""What signals mean to a run, in this process: each test raises them itself."""

import signal
from collections.abc import Iterator

import pytest

from fluxkit.commands.brake import DETACHED, Brake


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_ctrl_c_is_a_wish_and_the_second_an_end() -> None:
    brake = Brake(lambda: True)
    with brake.armed():
        signal.raise_signal(signal.SIGINT)
        assert brake.wanted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_and_a_closing_terminal_end_it_at_once(number: signal.Signals) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with Brake(lambda: True).armed(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_run_under_nohup_outlives_the_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Brake(lambda: True).armed():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_detached_run_outlives_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    monkeypatch.setenv(DETACHED, "1")
    with Brake(lambda: True).armed():
        signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
