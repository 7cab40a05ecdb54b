"""Blocks that don't fit the GPU stay in the host's memory and come over one by one, the next while one works.

The numbers are the same, so are the pictures. On a card of 12 GB a step then costs what moving the weights costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch  # noqa: TID253 - as in fastflux.py


class BlockStreamer:
    """Holds the tensors of some blocks in host memory, and lends them to the device.

    Args:
        device: where the blocks work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host: dict[int, list[tuple[Any, str, torch.Tensor]]] = {}
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._coming: dict[int, list[torch.Tensor]] = {}
        self.lent_at_once = 0

    def take(self, number: int, block: Any) -> None:
        """Stream a block from now on; wherever its tensors are, they go to the host."""
        self._host[number] = self._keep(block)

    def _keep(self, block: Any) -> list[tuple[Any, str, torch.Tensor]]:
        """Move a block's buffers and parameters to (pinned) host memory."""
        kept = []
        for module in block.modules():
            for holder in (module._buffers, module._parameters):
                for name, tensor in holder.items():
                    if tensor is not None:
                        host = tensor.detach().cpu()
                        kept.append((holder, name, host.pin_memory() if self._stream is not None else host))
                        holder[name] = None
        return kept

    def __contains__(self, number: int) -> bool:
        return number in self._host

    @contextmanager
    def lend(self, number: int) -> Iterator[None]:
        """The block's tensors are on the device inside; the next block's are on their way."""
        if number not in self._host:
            if number + 1 in self._host:
                self._fetch(number + 1)
            yield
            return
        self._fetch(number)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        for (holder, name, _), tensor in zip(self._host[number], self._coming[number], strict=True):
            holder[name] = tensor
        if number + 1 in self._host:
            self._fetch(number + 1)
        self.lent_at_once = max(self.lent_at_once, len(self._coming))
        try:
            yield
        finally:
            for holder, name, _ in self._host[number]:
                if self._stream is not None:
                    # The memory is free for others once the work that was given to the device is done with it.
                    holder[name].record_stream(torch.cuda.current_stream(self._device))
                holder[name] = None
            del self._coming[number]

    def _fetch(self, number: int) -> None:
        if number in self._coming:
            return
        if self._stream is None:
            self._coming[number] = [host.clone() for _, _, host in self._host[number]]
            return
        with torch.cuda.stream(self._stream):
            self._coming[number] = [host.to(self._device, non_blocking=True) for _, _, host in self._host[number]]
