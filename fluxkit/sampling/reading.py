"""Weights from disk straight to where they work: several threads read, through pinned buffers onto the GPU.

One thread that copies out of a memory map, as safetensors does, is slower than a fast disk, and the copy to the GPU
only starts when it is done. Nothing here goes through a whole second copy in RAM.
"""

import json
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_CHUNK = 16 * 2**20
_THREADS = 8
# safetensors' names of what is kept.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "I8": "int8",
           "U8": "uint8", "I32": "int32", "I64": "int64"}  # fmt: skip
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Args:
        dtype: its name in torch.
        shape: of the tensor.
        start: of its bytes in the file.
        size: in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file of which only the header was read.

    Args:
        path: where it is.
        entries: its tensors by name, in the order of their bytes.
        metadata: what its writer noted.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]


def open_tensors(path: Path) -> TensorFile:
    """Read the header of a safetensors file, and hold it against the file's size.

    Raises:
        OSError: it can't be read.
        ValueError: it is no whole safetensors file of known types.
    """
    import torch

    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= _LONGEST_HEADER:
            raise ValueError(f"{path} is no safetensors file")
        header = json.loads(handle.read(length))
        end = handle.seek(0, os.SEEK_END)
    entries = {}
    try:
        metadata = header.pop("__metadata__", {})
        at = 8 + length
        for name, facts in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
            first, last = (8 + length + number for number in facts["data_offsets"])
            entry = Entry(_DTYPES[facts["dtype"]], tuple(facts["shape"]), first, last - first)
            if first != at or entry.size != math.prod(entry.shape) * getattr(torch, entry.dtype).itemsize:
                raise ValueError(f"{path} has a tensor {name} of the wrong size")
            entries[name], at = entry, last
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} has a damaged header") from error
    if at != end:
        raise ValueError(f"{path} has {end} bytes instead of {at}")
    return TensorFile(path, entries, metadata)


def read_tensors(
    file: TensorFile, device_of: "Callable[[str], torch.device | str]", threads: int = _THREADS
) -> "dict[str, torch.Tensor]":
    """All tensors of a file, each on its device.

    Args:
        file: from `open_tensors`.
        device_of: where a tensor of that name goes.
        threads: that read side by side.

    Raises:
        OSError: the file can't be read, or ends early.
        torch.OutOfMemoryError: they don't fit.
    """
    import torch

    tensors = {
        name: torch.empty(entry.shape, dtype=getattr(torch, entry.dtype), device=device_of(name))
        for name, entry in file.entries.items()
    }
    waiting = deque(_chunks(file, tensors))
    gpu = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
    if gpu is not None:  # the readers' streams write into memory that earlier work may still use
        torch.cuda.current_stream(gpu).synchronize()
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, min(threads, len(waiting))), thread_name_prefix="fluxkit-reader") as pool:
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            readers = [pool.submit(_reader, descriptor, waiting, stop, gpu) for _ in range(pool._max_workers)]
            for one in readers:
                one.result()
        finally:
            stop.set()
            pool.shutdown()
            os.close(descriptor)
    return tensors


@dataclass(frozen=True)
class _Chunk:
    """Bytes that are read at once, and where they go: (target, its first byte, first byte in the chunk, length)."""

    start: int
    size: int
    pieces: "list[tuple[torch.Tensor, int, int, int]]"


def _chunks(file: TensorFile, tensors: "Mapping[str, torch.Tensor]") -> list[_Chunk]:
    import torch

    chunks: list[_Chunk] = []
    for name, entry in file.entries.items():
        target = tensors[name].reshape(-1).view(torch.uint8)
        done = 0
        while done < entry.size:
            at = entry.start + done
            if not chunks or chunks[-1].size == _CHUNK:
                chunks.append(_Chunk(at, 0, []))
            last = chunks[-1]
            length = min(entry.size - done, _CHUNK - last.size)
            last.pieces.append((target, done, at - last.start, length))
            chunks[-1] = _Chunk(last.start, last.size + length, last.pieces)
            done += length
    return chunks


def _reader(descriptor: int, waiting: "deque[_Chunk]", stop: threading.Event, gpu: "torch.device | None") -> None:
    """Read chunks until none is left; on a GPU one buffer is filled while the other is copied."""
    import torch

    stream: Any = torch.cuda.Stream(gpu) if gpu else None
    buffers = [torch.empty(_CHUNK, dtype=torch.uint8, pin_memory=stream is not None) for _ in range(2)]
    copied: list[Any] = [torch.cuda.Event() if stream else None for _ in buffers]
    number = 0
    try:
        with torch.cuda.stream(stream) if stream else nullcontext():
            while not stop.is_set():
                try:
                    chunk = waiting.popleft()
                except IndexError:
                    break
                buffer, event = buffers[number % 2], copied[number % 2]
                if event is not None:
                    event.synchronize()
                _fill(descriptor, chunk, memoryview(buffer.numpy())[: chunk.size])
                for target, to, at, length in chunk.pieces:
                    target[to : to + length].copy_(buffer[at : at + length], non_blocking=True)
                if event is not None:
                    event.record(stream)
                number += 1
    finally:
        if stream:  # after a failure too: what is being copied belongs to tensors that are about to be freed
            stream.synchronize()


def _fill(descriptor: int, chunk: _Chunk, view: memoryview) -> None:
    done = 0
    while done < chunk.size:
        got = os.preadv(descriptor, [view[done:]], chunk.start + done)
        if not got:
            raise OSError("the file ended early")
        done += got


class Ahead:
    """Files being read into the file cache in the background, while something else keeps the program busy.

    Args:
        paths: in the order in which they will be needed.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._stop = threading.Event()
        self._waiting: deque[tuple[Path, int]] = deque()
        for path in paths:
            with suppress(OSError):
                self._waiting.extend((path, at) for at in range(0, path.stat().st_size, _CHUNK))
        self._threads = [threading.Thread(target=self._read, daemon=True) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Read no further."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        buffer = bytearray(_CHUNK)
        while not self._stop.is_set():
            try:
                path, at = self._waiting.popleft()
            except IndexError:
                return
            with suppress(OSError), path.open("rb", buffering=0) as handle:
                handle.seek(at)
                handle.readinto(buffer)
