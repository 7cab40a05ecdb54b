"""Blocks that don't fit the GPU stay in the host's memory and come over one by one, the next while one works.

The numbers are the same, so are the pictures. On a card of 12 GB a step then costs what moving the weights costs.
Each block is one piece of pinned memory and one copy; two places on the device take them in turn, so that a program
that runs ahead of its GPU never holds more than two.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - as in fastflux.py

_ALIGNED = 256  # bytes; what CUDA's allocator gives


@dataclass(frozen=True)
class _Part:
    """A tensor of a block: `holder[name]`, and where it is in the block's piece of memory."""

    holder: dict[str, Any]
    name: str
    start: int
    size: int
    dtype: torch.dtype
    shape: torch.Size

    def within(self, memory: torch.Tensor) -> torch.Tensor:
        return memory[self.start : self.start + self.size].view(self.dtype).view(self.shape)


class _Place:
    """Memory on the device for one block at a time."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        cuda = device.type == "cuda"
        self.arrived: Any = torch.cuda.Event() if cuda else None
        self.left: Any = torch.cuda.Event() if cuda else None


class BlockStreamer:
    """Holds the tensors of some blocks in host memory, and lends them to the device.

    Args:
        device: where the blocks work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host: dict[int, torch.Tensor] = {}
        self._parts: dict[int, list[_Part]] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._places: list[_Place] = []
        self._pinned: list[int] = []
        weakref.finalize(self, _unpin, self._pinned)
        self.lent_at_once = 0

    def take(self, number: int, block: Any) -> None:
        """Stream a block from now on; wherever its tensors are, they go to the host."""
        parts, end = list[_Part](), 0
        holders = [holder for module in block.modules() for holder in (module._buffers, module._parameters)]
        tensors = [(holder, name, one) for holder in holders for name, one in holder.items() if one is not None]
        for holder, name, tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            parts.append(_Part(holder, name, end, size, tensor.dtype, tensor.shape))
            end += -(-size // _ALIGNED) * _ALIGNED
        memory = torch.empty(end, dtype=torch.uint8)
        for part, (holder, name, tensor) in zip(parts, tensors, strict=True):
            part.within(memory).copy_(tensor.detach())
            holder[name] = None
        if self._stream is not None:
            if pin(memory):
                self._pinned.append(memory.data_ptr())
            # After an error a block may still be on its way into a place that is given back here.
            self._stream.synchronize()
        self._host[number], self._parts[number] = memory, parts
        self._places = []

    def __contains__(self, number: int) -> bool:
        return number in self._host

    @contextmanager
    def lend(self, number: int) -> Iterator[None]:
        """The block's tensors are on the device inside; the next block's are on their way."""
        following = number + 1 if number + 1 in self._host else min(self._host)
        if number not in self._host:
            if following == number + 1:
                self._fetch(following, None)
            yield
            return
        place = self._fetch(number, None)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_event(place.arrived)
        for part in self._parts[number]:
            part.holder[part.name] = part.within(place.memory)
        self._fetch(following, number)  # after the last one, the first for the next step
        self.lent_at_once = max(self.lent_at_once, sum(one.holds is not None for one in self._places))
        try:
            yield
        finally:
            for part in self._parts[number]:
                part.holder[part.name] = None
            if self._stream is not None:
                place.left.record(torch.cuda.current_stream(self._device))

    def _fetch(self, number: int, lent: int | None) -> _Place:
        """Where a block is or will be; not in the place of the one that is lent."""
        if not self._places:
            size = max(memory.numel() for memory in self._host.values())
            self._places = [_Place(size, self._device) for _ in range(2)]
            if self._stream is not None:  # the places may be memory that earlier work still uses
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for place in self._places:
            if place.holds == number:
                return place
        place = next(one for one in self._places if lent is None or one.holds != lent)
        host = self._host[number]
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if self._stream is not None:
                self._stream.wait_event(place.left)
            place.memory[: host.numel()].copy_(host, non_blocking=True)
            if self._stream is not None:
                place.arrived.record(self._stream)
        place.holds = number
        return place


def pin(memory: torch.Tensor) -> bool:
    """Lock a piece of host memory, as it is: torch's own pinned memory comes in powers of two.

    Returns:
        False where the system has no more to lock: copies are slower then, but right.
    """
    if int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)) == 0:
        return True
    with suppress(RuntimeError):  # CUDA keeps the refusal and gives it to the next kernel: let this be that one
        torch.zeros(1, device="cuda")
    return False


def _unpin(pointers: list[int]) -> None:
    for pointer in pointers:
        torch.cuda.cudart().cudaHostUnregister(pointer)
