"""Did the originals change since the copy was made?"""

from dataclasses import dataclass
from pathlib import Path

from fluxkit.dataset.preparing.manifest import CaptionCopy, Manifest, unchanged
from fluxkit.dataset.preparing.sources import list_sources, source_name
from fluxkit.files import sha256_file


@dataclass(frozen=True)
class Changes:
    """Originals that the copy does not know as they are now; names relative to their folder."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)

    def describe(self) -> str:
        """For people: `2 new, 1 changed, 1 gone`."""
        counts = {"new": self.new, "changed": self.changed, "gone": self.gone}
        return ", ".join(f"{len(names)} {word}" for word, names in counts.items() if names)


def changes(manifest: Manifest, source: Path) -> Changes:
    """Compare the originals with the manifest: by size and time, by contents only where those differ."""
    sources = list_sources(source)
    stamps = {photo.source: photo.original for photo in manifest.photos}
    stamps |= {left.source: left.original for left in manifest.left_out if left.original is not None}
    unusable = {left.source for left in manifest.left_out if left.original is None}
    captions = {photo.source: photo.caption for photo in manifest.photos}
    files = {source_name(path, source): path for path in sources.captions.values()}
    changed = []
    for name, path in sources.pictures.items():
        same = name not in stamps or unchanged(path, stamps[name])
        if same and name in captions:
            before = captions[name]
            caption = files.get(before.source) if before else sources.captions.get(name)
            same = _same_caption(caption, before)
        if not same:
            changed.append(name)
    known = set(stamps) | unusable
    return Changes(
        new=tuple(name for name in sources.pictures if name not in known),
        changed=tuple(changed),
        gone=tuple(sorted(name for name in stamps if name not in sources.pictures)),
    )


def _same_caption(path: Path | None, before: CaptionCopy | None) -> bool:
    if path is None or before is None:  # one that was written in the copy itself has no record
        return path is None and before is None
    try:
        return sha256_file(path) == before.source_sha256
    except OSError:
        return False
