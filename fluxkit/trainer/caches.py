"""The trainer's caches of photos, kept true: what was made from a photo that changed is dropped before the launch.

SimpleTuner names a photo's latents by its file name and takes them for good while they are there (`caching/vae.py`,
1.2.5 to 4.10.1, SimpleTuner #643); its `aspect_ratio_bucket_{indices,metadata}_<id>.json` beside the photos keep size
and crop the same way, and from 4.6.0 on a checkpoint's `training_state-<id>.json` brings back the list of photos as it
was. So a photo replaced under its name trains as the old one, and a photo that was taken out goes on being trained.
Captions need no such care: their embeddings are named by the MD5 of the text.

fluxkit keeps a list beside each cache folder, `<id>.photos.json`: what each photo was when its latents were made. A
photo is known again by size, times and inode; only one whose these changed is read. Latents without an entry there are
of unknown origin and are made anew.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from fluxkit.files import sha256_file, write_json

_VERSION = 1
_STALE = ".stale"
# Size, times of content and inode in nanoseconds, inode, SHA-256 of the bytes.
_Photo = tuple[int, int, int, int, str]


@dataclass(frozen=True)
class CacheChange:
    """What was done to one image backend's caches.

    Args:
        backend: its id.
        changed: photos with other contents than their latents were made from, relative to the photos' folder.
        added: photos that were not there.
        gone: photos that are not there any more.
        dropped: latents that were removed.
    """

    backend: str
    changed: tuple[str, ...]
    added: tuple[str, ...]
    gone: tuple[str, ...]
    dropped: int

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.gone)


class Photos:
    """The photos as they are now, each read once at most however many backends ask.

    Args:
        folder: the photos' folder, as the trainer is given it.
        names: every photo in it, relative to it.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._paths = {name: folder / name for name in names}
        self._seen: dict[str, _Photo] = {}

    def compared_with(self, known: Mapping[str, _Photo]) -> dict[str, _Photo]:
        """Each photo's entry; those that look as in `known` are not read.

        Raises:
            OSError: a photo can't be read.
        """
        unread = {}
        for name, path in self._paths.items():
            found = path.stat()
            state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            was = self._seen.get(name) or known.get(name)
            if was is not None and was[:4] == state:
                self._seen[name] = was
            else:
                unread[name] = state
        with ThreadPoolExecutor(8) as pool:
            for name, digest in zip(unread, pool.map(lambda n: sha256_file(self._paths[n]), unread), strict=True):
                self._seen[name] = (*unread[name], digest)
        return {name: self._seen[name] for name in self._paths}


def refresh_cache(backend: Mapping[str, Any], photos: Photos, output_dir: Path) -> CacheChange:
    """Drop what was cached of photos that changed or are gone, and remember the photos as they are.

    The list is written last: a kill on the way leaves the old one, and the next launch drops the rest.

    Args:
        backend: an image backend, as rendered.
        photos: the photos in its folder.
        output_dir: the run's; its checkpoints' lists of photos are taken away where they don't hold any more.
    """
    name, folder = str(backend["id"]), Path(backend["cache_dir_vae"])
    list_file = folder.with_name(f"{folder.name}.photos.json")
    known = _read(list_file)
    now = photos.compared_with(known)
    changed = sorted(photo for photo in now.keys() & known.keys() if now[photo][4] != known[photo][4])
    added, gone = sorted(now.keys() - known.keys()), sorted(known.keys() - now.keys())
    true = now.keys() - {*changed, *added}
    dropped = _drop_latents(folder, true)
    if changed or added or gone:
        _forget_buckets(photos.folder, name, {str(photos.folder / photo) for photo in true})
        _forget_positions(output_dir, name)
    if known != now:
        write_json(list_file, {"version": _VERSION, "photos": now})
    return CacheChange(name, tuple(changed), tuple(added), tuple(gone), dropped)


def latents_names(photo: str) -> tuple[str, str]:
    """Where a photo's latents lie in its cache folder: named by its stem's hash, in older releases by the stem."""
    path = Path(photo)
    stem = hashlib.sha256(path.stem.encode()).hexdigest()
    return (path.parent / f"{stem}.pt").as_posix(), (path.parent / f"{path.stem}.pt").as_posix()


def _read(path: Path) -> dict[str, _Photo]:
    """The list; empty where there is none that can be understood, so that everything is made anew."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        photos = document["photos"] if document["version"] == _VERSION else {}
        return {name: (int(a), int(b), int(c), int(d), str(digest)) for name, (a, b, c, d, digest) in photos.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _drop_latents(folder: Path, true: set[str]) -> int:
    """Remove every latents file but those of the photos named, and empty ones, which a full disk leaves."""
    keep = {name for photo in true for name in latents_names(photo)}
    dropped = 0
    for path in list(folder.rglob("*.pt")):
        if path.relative_to(folder).as_posix() not in keep or not path.stat().st_size:
            path.unlink(missing_ok=True)
            dropped += 1
    return dropped


def _forget_buckets(folder: Path, backend: str, true: set[str]) -> None:
    """Leave only the photos named in the trainer's lists of sizes and crops; it looks at the others anew."""
    indices, metadata = (folder / f"aspect_ratio_bucket_{what}_{backend}.json" for what in ("indices", "metadata"))
    try:
        sorted_in = json.loads(indices.read_text(encoding="utf-8"))
        buckets = sorted_in["aspect_ratio_bucket_indices"]
        sorted_in["aspect_ratio_bucket_indices"] = {
            bucket: [path for path in paths if path in true] for bucket, paths in buckets.items()
        }
        facts = json.loads(metadata.read_text(encoding="utf-8"))
        write_json(metadata, {path: fact for path, fact in facts.items() if path in true})
        write_json(indices, sorted_in)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        for path in (indices, metadata):  # nothing there, or nothing to be understood: from scratch
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _forget_positions(output_dir: Path, backend: str) -> None:
    """Take a backend's own state out of the run's checkpoints: it names the photos of before."""
    for path in list(_positions(output_dir, backend)):
        path.replace(path.with_name(path.name + _STALE))


def _positions(output_dir: Path, backend: str) -> Iterator[Path]:
    return output_dir.glob(f"checkpoint-*/training_state*-{escape(backend)}.json")
