"""Which pictures of a folder are kept and which rejected: `picks.json`, by job hash."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from fluxkit.errors import UserError
from fluxkit.files import read_json, write_json
from fluxkit.sampling.ledger import read_entries

PICKS = "picks.json"
_FORMAT = 1
_VALUES = ("keep", "reject")
_lock = threading.Lock()

Pick = Literal["keep", "reject"]


def read_picks(folder: Path, file: Path | None = None) -> dict[str, Pick]:
    """The picks of a folder; empty before the first.

    Args:
        folder: of the images.
        file: another file than the folder's own, such as one that the page let download.

    Raises:
        UserError: the file is damaged.
    """
    path = file or folder / PICKS
    if file is None and not path.is_file():
        return {}
    data = read_json(path)
    picks = data.get("picks") if isinstance(data, dict) and data.get("format") == _FORMAT else None
    if not isinstance(picks, dict) or not all(value in _VALUES for value in picks.values()):
        raise UserError(f"{path} is damaged, or of another version of fluxkit.", fix="Move it away and pick again.")
    return {str(key): value for key, value in picks.items()}


def set_pick(folder: Path, key: str, pick: Pick | None) -> None:
    """Record one pick, or take it back; the file is whole at any moment.

    Raises:
        UserError: the picks' file is damaged, or can't be written.
    """
    with _lock:  # the gallery's server answers each request in a thread
        picks = read_picks(folder)
        if pick is None:
            picks.pop(key, None)
        else:
            picks[key] = pick
        write_json(folder / PICKS, {"format": _FORMAT, "picks": picks})


def kept(folder: Path, file: Path | None = None) -> Iterator[Path]:
    """The kept pictures that are there, in the order they were made."""
    picks = read_picks(folder, file)
    for key, entry in read_entries(folder).items():
        path = folder / str(entry["file"])
        if picks.get(key) == "keep" and path.is_file():
            yield path
