"""Small copies of the pictures for the gallery, kept in the folder's `.thumbs`, so that each is made once."""

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.files import write_bytes
from fluxkit.sampling.axes import Entry

FOLDER = ".thumbs"
_LARGE, _SMALL = 448, 256  # pixels of the longer edge
_MANY = 200  # from here on small ones: 1,000 make a page of about 15 MB


def thumbnails(folder: Path, entries: Sequence[Entry]) -> list[str]:
    """A WebP of each picture as a data URI.

    Args:
        folder: of the images.
        entries: of its ledger.
    """
    edge = _SMALL if len(entries) > _MANY else _LARGE
    return [_thumbnail(folder, entry, edge) for entry in entries]


def _thumbnail(folder: Path, entry: Entry, edge: int) -> str:
    path = folder / str(entry["file"])
    # By content: a picture that was made anew under its old name gets another one.
    name = str(entry.get("sha256") or f"{path.stem}-{path.stat().st_mtime_ns}")[:48]
    kept = folder / FOLDER / f"{name}-{edge}.webp"
    try:
        data = kept.read_bytes()
    except OSError:
        data = _make(path, edge)
        with suppress(UserError):  # the disk is full: the page can do without
            write_bytes(kept, data)
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")


def _make(path: Path, edge: int) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((edge, edge), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=78)
    return buffer.getvalue()
