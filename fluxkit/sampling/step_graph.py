"""A step's 900 kernels given to the GPU at once, as a CUDA graph: its speed no longer depends on a busy CPU.

The same kernels on the same numbers: the pictures are the same, to the bit.
"""

from collections.abc import Callable

import torch  # noqa: TID253 - as in fastflux.py

Work = Callable[..., torch.Tensor]


class StepGraph:
    """Records the work of one step and repeats it for inputs of the same shapes.

    What lies between the kernels (0.4 GiB for a picture of 1024×1024) stays taken while the graph is kept. Where
    memory does not suffice, and for the first step of each shape, the work is done as if there were no graph.
    """

    def __init__(self) -> None:
        self._shapes: tuple[torch.Size, ...] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[torch.Tensor, ...] = ()
        self._result: torch.Tensor | None = None
        self.gave_up = False

    def __call__(self, work: Work, *inputs: torch.Tensor) -> torch.Tensor:
        """What `work` makes of the inputs.

        Raises:
            torch.OutOfMemoryError: there is not enough memory without a graph either.
        """
        shapes = tuple(one.shape for one in inputs)
        if shapes != self._shapes:
            # The first time loads kernels and libraries choose theirs, which can't be recorded.
            self.forget()
            self._shapes = shapes
            return work(*inputs)
        if self.gave_up:
            return work(*inputs)
        if self._graph is None:
            self._record(work, inputs)
        graph, result = self._graph, self._result
        if graph is None or result is None:
            return work(*inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        graph.replay()
        return result.clone()

    def forget(self) -> None:
        """Let the graph and its memory go."""
        self._graph = self._result = self._shapes = None
        self._inputs = ()

    def _record(self, work: Work, inputs: tuple[torch.Tensor, ...]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            kept = tuple(one.clone() for one in inputs)
            with torch.cuda.graph(graph):
                result = work(*kept)
        except torch.OutOfMemoryError:
            self.gave_up = True
        else:
            self._graph, self._inputs, self._result = graph, kept, result
