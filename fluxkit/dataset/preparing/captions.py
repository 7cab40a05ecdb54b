"""Captions come along: the same words in clean UTF-8; what was edited in the copy stays as it is."""

import hashlib
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluxkit.dataset.preparing.manifest import CaptionCopy
from fluxkit.files import sha256_file

Action = Literal["write", "keep", "remove", "nothing"]


@dataclass(frozen=True)
class CaptionPlan:
    """What happens to one caption of the copy.

    Args:
        action: `keep` what is there, `write` the new text, `remove` a stale one, or `nothing` there and nothing to do.
        copy: what the manifest says of it afterwards.
        text: what to write.
        edited: it was changed in the copy, or written there.
        conflict: it was edited, and the original's caption is another one since.
    """

    action: Action
    copy: CaptionCopy | None = None
    text: bytes = b""
    edited: bool = False
    conflict: bool = False


def clean_caption(data: bytes) -> bytes | None:
    """The same words as the trainer wants them: UTF-8 without byte order mark, line feeds, no blank lines.

    Returns:
        None where the bytes are neither UTF-8 nor UTF-16 with a byte order mark.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    lines = [line for line in lines if line]
    return ("\n".join(lines) + "\n").encode() if lines else b""


def plan_caption(
    target: Path, source: tuple[str, bytes] | None, before: CaptionCopy | None, known: Set[str]
) -> CaptionPlan:
    """Decide on one caption; nothing is written here.

    Args:
        target: the caption in the copy.
        source: name and bytes of the original's caption, if it has one.
        before: what the manifest says of the caption.
        known: hashes of all that prepare itself wrote there.
    """
    present = sha256_file(target) if target.is_file() else None
    if source is None:
        if present is None:
            return CaptionPlan("nothing")
        if present in known:
            return CaptionPlan("remove")
        return CaptionPlan("keep", edited=True, conflict=before is not None)
    name, data = source
    cleaned = clean_caption(data)
    text = data if cleaned is None else cleaned
    copy = CaptionCopy(source=name, source_sha256=_sha256(data), sha256=_sha256(text))
    if present == copy.sha256:
        return CaptionPlan("keep", copy)
    if present is None or present in known:
        return CaptionPlan("write", copy, text)
    # The record takes the new original for known: a conflict is told once, that the caption was edited every time.
    conflict = before is None or before.source_sha256 != copy.source_sha256
    return CaptionPlan("keep", copy, edited=True, conflict=conflict)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
