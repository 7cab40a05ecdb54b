"""Whether a file can be whole, from its structure alone.

Decoding finds most files that end early, not all: Pillow accepts a PNG without its end, a JPEG that lacks its last
bytes, a WebP whose second half is zeros (as broken downloads leave it) and an MPO without its second picture.
"""

import os
import struct
import zlib
from io import BufferedReader
from typing import Any

_ZEROS = 1024
_CHUNK, _TAIL = 1 << 20, 4096


def broken_off(handle: BufferedReader, image: Any) -> str:
    """Why a file can't be whole; empty where nothing speaks against it.

    Args:
        handle: the file; its position is kept.
        image: the same, opened with Pillow.
    """
    place, size = handle.tell(), os.fstat(handle.fileno()).st_size
    try:
        if image.format == "PNG":
            return _png(handle, size)
        if image.format == "WEBP":
            return _webp(handle, size)
        return _jpeg(handle, size) or _mpo(image, size)
    finally:
        handle.seek(place)


def _png(handle: BufferedReader, size: int) -> str:
    place = 8
    while place + 12 <= size:
        length, kind = struct.unpack(">I4s", _read(handle, place, 8))
        if place + 12 + length <= size and not _sums_up(handle, place + 4, length + 4):
            return "its bytes have changed: a checksum is wrong"
        place += 12 + length
        if kind == b"IEND" and place <= size:
            return ""
    return "it ends early"


def _sums_up(handle: BufferedReader, place: int, count: int) -> bool:
    """Whether the four bytes behind a place are the CRC-32 of it; Pillow doesn't look at that of the picture's data."""
    handle.seek(place)
    found = 0
    while count:
        chunk = handle.read(min(count, _CHUNK))
        found, count = zlib.crc32(chunk, found), count - len(chunk)
        if not chunk:
            return False
    return found == int.from_bytes(handle.read(4), "big")


def _webp(handle: BufferedReader, size: int) -> str:
    (length,) = struct.unpack("<I", _read(handle, 4, 4))
    end = length + 8
    if end > size:
        return f"it ends {end - size} bytes early"
    # Plain areas end in zeros too, but photographs don't spend a quarter of their bytes on them.
    zeros = max(_ZEROS, end // 4)
    cut_off = end > zeros + _ZEROS and not any(_read(handle, end - zeros, zeros))
    return "there are only zeros at its end" if cut_off and any(_read(handle, _ZEROS // 2, _ZEROS // 2)) else ""


def _jpeg(handle: BufferedReader, size: int) -> str:
    """The end marker must come behind the first scan; a thumbnail in the header has one of its own."""
    place = 2
    while len(head := _read(handle, place, 4)) == 4 and head[0] == 0xFF:
        if head[1] == 0xFF:  # fill bytes may precede a marker
            place += 1
        elif head[1] == 0xDA:  # start of scan: in its data, 0xFF is never followed by 0xD9
            return "" if _finds(handle, place, size, b"\xff\xd9") else "its end is missing"
        else:
            place += 2 + int.from_bytes(head[2:], "big")
    return ""  # odd, but then the decoder is the one to say so


def _mpo(image: Any, size: int) -> str:
    """The further pictures of a phone's JPEG are where its index says."""
    entries = (getattr(image, "mpinfo", None) or {}).get(0xB002, [])
    for number, entry in enumerate(entries[1:], start=1):
        image.seek(number)  # fails where even its beginning is missing
        end = image.offset + entry["Size"]
        image.seek(0)
        if end > size:
            return f"picture {number + 1} in it is cut off"
    return ""


def _read(handle: BufferedReader, place: int, count: int) -> bytes:
    handle.seek(place)
    return handle.read(count)


def _finds(handle: BufferedReader, place: int, size: int, mark: bytes) -> bool:
    """Whether a mark comes behind a place; nearly always it is the file's end."""
    tail = max(place, size - _TAIL)
    if mark in _read(handle, tail, _TAIL):
        return True
    handle.seek(place)
    last = b""
    while chunk := handle.read(_CHUNK):
        if mark in last + chunk:
            return True
        last = chunk[-1:]
    return False
