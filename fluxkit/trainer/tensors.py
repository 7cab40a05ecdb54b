"""The values of a safetensors file without torch: are they numbers, are they all zero.

The file is read in pieces, tensor by tensor. numpy has no bfloat16 and no float8, so their bits are looked at: a value
is no number where every bit of its exponent is set, and zero where every bit but the sign is clear
(https://huggingface.co/docs/safetensors names the dtypes and the layout).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_PIECE = 16 * 2**20
# dtype → numpy's view of its bits, the exponent's mask, the mask of everything but the sign.
_BITS: dict[str, tuple[str, int, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF),
    "F32": ("<u4", 0x7F80_0000, 0x7FFF_FFFF),
    "F16": ("<u2", 0x7C00, 0x7FFF),
    "BF16": ("<u2", 0x7F80, 0x7FFF),
    "F8_E5M2": ("u1", 0x7C, 0x7F),
    "F8_E4M3": ("u1", 0x7F, 0x7F),  # has no infinity: only all ones is no number
}


@dataclass(frozen=True)
class TensorFacts:
    """What one tensor's values are.

    Args:
        name: its key.
        finite: whether every value is a number.
        zero: whether every value is 0.
    """

    name: str
    finite: bool
    zero: bool


def scan_tensors(path: Path) -> Iterator[TensorFacts]:
    """Look at every tensor of a safetensors file whose header is known to fit its length.

    Raises:
        OSError: it can't be read.
        ValueError: it is no safetensors file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start = 8 + length
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            yield _scan(file, name, entry["dtype"], end - begin, math.prod(entry["shape"]))


def _scan(file: BinaryIO, name: str, dtype: str, size: int, count: int) -> TensorFacts:
    view, exponent, magnitude = _BITS.get(dtype, ("u1", 0, 0xFF))  # whole numbers are always numbers
    finite, zero = True, count > 0
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        bits = np.frombuffer(piece, view)
        if exponent:
            finite = finite and not bool(np.any((bits & exponent) == exponent))
        zero = zero and not bool(np.any(bits & magnitude))
    return TensorFacts(name, finite, zero)
