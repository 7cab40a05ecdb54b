"""JPEG without its metadata, bit for bit the same picture: segments are dropped, the compressed data is copied.

Source: ITU-T T.81 annex B (markers), JFIF 1.02 (APP0), Adobe technical note 5116 (APP14).
"""

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APP0, _APP14, _APP15 = 0xE0, 0xEE, 0xEF
# Markers that stand alone, without a length: restarts and TEM.
_ALONE = frozenset((*range(0xD0, 0xD8), 0x01))


def strip_jpeg(data: bytes) -> bytes | None:
    """Leave out EXIF, GPS, XMP, IPTC, colour profile, comments, thumbnails and all that follows the picture.

    Kept are the tables, the compressed data, the JFIF header (without its thumbnail) and Adobe's, which says how the
    colours are coded. A phone's second picture (MPO) and a motion photo's film lie behind the end marker, and go.

    Returns:
        The bytes of a JPEG that decodes to the same pixels; None when the structure is not plain enough to be sure.
    """
    if not data.startswith(b"\xff\xd8"):
        return None
    kept = bytearray(data[:2])
    position = 2
    while True:
        marker, position = _marker(data, position)
        if marker is None or marker == _SOI:
            return None
        if marker == _EOI:
            return bytes(kept + b"\xff\xd9")
        if marker in _ALONE:
            kept += bytes((0xFF, marker))
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if length < 2 or end > len(data):
            return None
        kept += _segment(marker, data[position + 2 : end])
        position = end
        if marker == _SOS:
            position = _end_of_scan(data, position)
            kept += data[end:position]


def _marker(data: bytes, position: int) -> tuple[int | None, int]:
    """The marker at `position` and where it ends; None where there is none."""
    if position >= len(data) or data[position] != 0xFF:
        return None, position
    while position < len(data) and data[position] == 0xFF:  # any number of fill bytes
        position += 1
    return (data[position], position + 1) if position < len(data) else (None, position)


def _segment(marker: int, payload: bytes) -> bytes:
    """A segment as it is kept; nothing for metadata."""
    if marker == _APP0 and payload.startswith(b"JFIF\0") and len(payload) >= 14:
        payload = payload[:12] + b"\0\0"  # a thumbnail of 0 × 0 pixels
    elif marker == _COM or (_APP0 <= marker <= _APP15 and not (marker == _APP14 and payload.startswith(b"Adobe"))):
        return b""
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def _end_of_scan(data: bytes, position: int) -> int:
    """Where the compressed data ends: at the next marker that is neither a restart nor an escaped 0xFF."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        following = data[position + 1]
        if following == 0xFF:  # a fill byte: the marker follows
            position += 1
        elif following == 0 or 0xD0 <= following <= 0xD7:
            position += 2
        else:
            return position
