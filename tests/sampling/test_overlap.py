"""The writing thread: order, bound, errors, the end."""

import threading
import time
from collections.abc import Callable

import pytest

from fluxkit.sampling.overlap import BackgroundWriter


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def waits(gate: threading.Event, result: int) -> Callable[[], int]:
    def write() -> int:
        assert gate.wait(60)
        return result

    return write


def test_results_come_in_the_order_given_and_none_is_lost(gate: threading.Event) -> None:
    writer: BackgroundWriter[int] = BackgroundWriter(depth=5)
    early = [result for i in range(5) for result in writer.put(waits(gate, i))]
    assert early == [], "the caller goes on with the next batch meanwhile"
    gate.set()
    late = [result for i in range(5, 30) for result in writer.put(lambda i=i: i)]
    assert late + list(writer.drain()) == list(range(30))
    writer.close()


def test_no_more_pictures_are_held_than_was_said(gate: threading.Event) -> None:
    writer: BackgroundWriter[int] = BackgroundWriter(depth=2)
    for i in range(2):
        assert list(writer.put(waits(gate, i))) == []
    results: list[int] = []
    third = threading.Thread(target=lambda: results.extend(writer.put(waits(gate, 2))))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "a third one waits"
    gate.set()
    third.join(60)
    results += writer.drain()
    assert results == [0, 1, 2]
    writer.close()


def test_an_error_comes_in_its_turn_and_the_rest_can_still_be_had() -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    writer: BackgroundWriter[int] = BackgroundWriter()
    results = [result for write in (lambda: 1, full, lambda: 3) for result in _quiet(writer, write)]
    while True:
        try:
            results += writer.drain()
            break
        except OSError as error:
            results.append(-error.errno if error.errno else 0)
    assert results == [1, -28, 3]
    writer.close()


def _quiet(writer: BackgroundWriter[int], write: Callable[[], int]) -> list[int]:
    results = []
    try:
        results += writer.put(write)
    except OSError as error:
        results.append(-(error.errno or 0))
    return results


def test_closing_waits_for_what_was_handed_over() -> None:
    done = []
    writer: BackgroundWriter[None] = BackgroundWriter()
    for i in range(3):
        list(writer.put(lambda i=i: (time.sleep(0.02), done.append(i))[1]))
    writer.close()
    assert done == [0, 1, 2]
