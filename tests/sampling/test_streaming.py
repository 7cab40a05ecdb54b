"""Lent blocks have their own numbers, whatever was lent before them, and never more than two are there."""

from typing import Any

import pytest


def block(seed: int) -> Any:
    """A block of several types and sizes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = torch.nn.Module()
    made.inner = torch.nn.Linear(3 + seed % 2, 5)
    for name, parameter in made.inner.named_parameters():
        made.inner._parameters[name] = torch.nn.Parameter(
            torch.randn(parameter.shape, generator=generator), requires_grad=False
        )
    made.register_buffer("scale", torch.randn(1, 7, generator=generator).to(torch.float8_e4m3fn))
    made.register_buffer("nothing", None)
    return made


def state(of: Any) -> dict[str, bytes]:
    import torch

    return {name: one.reshape(-1).view(torch.uint8).numpy().tobytes() for name, one in of.state_dict().items()}


@pytest.mark.parametrize("streamed", [1, 2, 4])
def test_each_block_gets_its_own_numbers_step_after_step(streamed: int) -> None:
    import torch

    from fluxkit.sampling.streaming import BlockStreamer

    blocks = [block(seed) for seed in range(5)]
    expected = [state(one) for one in blocks]
    streamer = BlockStreamer(torch.device("cpu"))
    for number in range(5 - streamed, 5):
        streamer.take(number, blocks[number])
        assert not state(blocks[number]), "its tensors are not in the block any more"
    for _ in range(3):
        for number, one in enumerate(blocks):
            with streamer.lend(number):
                assert state(one) == expected[number]
    assert 1 <= streamer.lent_at_once <= 2


def test_more_blocks_can_be_taken_while_others_are_streamed() -> None:
    import torch

    from fluxkit.sampling.streaming import BlockStreamer

    blocks = [block(seed) for seed in range(4)]
    expected = [state(one) for one in blocks]
    streamer = BlockStreamer(torch.device("cpu"))
    for more in ([3], [2, 1], [0]):
        for number in more:
            streamer.take(number, blocks[number])
        for number, one in enumerate(blocks):
            with streamer.lend(number):
                assert state(one) == expected[number]


def test_a_block_that_fails_gives_its_place_back() -> None:
    import torch

    from fluxkit.sampling.streaming import BlockStreamer

    only = block(1)
    expected = state(only)
    streamer = BlockStreamer(torch.device("cpu"))
    streamer.take(0, only)
    with pytest.raises(ValueError, match="in the block"), streamer.lend(0):
        raise ValueError("in the block")
    assert not state(only)
    with streamer.lend(0):
        assert state(only) == expected


class Cuda:
    """A CUDA that refuses to lock memory, and keeps the refusal until a kernel is started, as CUDA does."""

    def __init__(self) -> None:
        self.error = 0

    def cudaHostRegister(self, *_: int) -> int:
        self.error = 2
        return self.error

    def kernel(self, *_: object, **_given: object) -> None:
        error, self.error = self.error, 0
        if error:
            raise RuntimeError(f"CUDA error {error}")


def test_memory_that_cant_be_locked_does_not_fail_the_next_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fluxkit.sampling import streaming

    memory, cuda = torch.empty(256, dtype=torch.uint8), Cuda()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cuda)
    monkeypatch.setattr(torch, "zeros", cuda.kernel)
    assert streaming.pin(memory) is False
    cuda.kernel()
