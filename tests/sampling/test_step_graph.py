"""When a step is recorded, repeated and given up; the graph itself is CUDA's, so a stand-in repeats the work here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Recorder:
    """Stands for a CUDA graph: repeats what was done while it recorded, into the same result."""

    recording: Any = None

    def __init__(self) -> None:
        self.work: Any = None
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.work()


@contextmanager
def recording(graph: Recorder) -> Iterator[None]:
    Recorder.recording = graph
    try:
        yield
    finally:
        Recorder.recording = None


class Doubling:
    """Work that counts how often it is really done."""

    def __init__(self) -> None:
        self.done = 0
        self.short = False

    def __call__(self, x: Any, y: Any) -> Any:
        import torch

        if Recorder.recording is not None and self.short:
            raise torch.OutOfMemoryError("injected")
        self.done += 1
        result = x * 2 + y
        if Recorder.recording is not None:
            Recorder.recording.work = lambda: result.copy_(x * 2 + y)
        return result


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Any:
    import torch

    from fluxkit.sampling.step_graph import StepGraph

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorder)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    return StepGraph()


def test_the_first_step_is_done_the_second_recorded_and_the_rest_repeated_for_their_own_inputs(graph: Any) -> None:
    import torch

    work, results = Doubling(), []
    for step in range(5):
        x, y = torch.full((2, 3), float(step)), torch.ones(3) * step
        results.append(graph(work, x, y))
    assert work.done == 2
    assert [float(one[0, 0]) for one in results] == [0.0, 3.0, 6.0, 9.0, 12.0], "no result is overwritten by the next"


def test_another_shape_is_recorded_anew(graph: Any) -> None:
    import torch

    work = Doubling()
    for rows in (1, 1, 1, 2, 2, 2, 1, 1):
        assert graph(work, torch.ones(rows, 3), torch.ones(3)).shape == (rows, 3)
    assert work.done == 6


def test_without_memory_for_a_graph_the_work_goes_on_without_one(graph: Any) -> None:
    import torch

    work = Doubling()
    work.short = True
    for step in range(4):
        assert float(graph(work, torch.full((1, 1), float(step)), torch.zeros(1))) == 2.0 * step
    assert graph.gave_up
    assert work.done == 4
