import hashlib
from pathlib import Path

import pytest

from fluxkit.dataset.preparing.captions import clean_caption, plan_caption
from fluxkit.dataset.preparing.manifest import CaptionCopy


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "clean"),
    [
        (b"behitek a man\n", b"behitek a man\n"),
        (b"\xef\xbb\xbf  behitek a man \r\n\r\n \r\nbehitek two\r", b"behitek a man\nbehitek two\n"),
        ("behitek für 🦊".encode("utf-16"), "behitek für 🦊\n".encode()),
        (b"\n \n", b""),
        (b"behitek \xff", None),
    ],
)
def test_the_words_stay_and_the_rest_is_cleaned(data: bytes, clean: bytes | None) -> None:
    assert clean_caption(data) == clean
    if clean is not None:
        assert clean_caption(clean) == clean


@pytest.mark.parametrize(
    ("present", "source", "recorded", "action", "edited", "conflict"),
    [
        (None, b"new\n", None, "write", False, False),
        (None, None, None, "nothing", False, False),
        (b"old\n", b"old\n", b"old\n", "keep", False, False),
        (b"old\n", b"new\n", b"old\n", "write", False, False),
        (b"old\n", None, b"old\n", "remove", False, False),
        (b"mine\n", b"old\n", b"old\n", "keep", True, False),
        (b"mine\n", b"new\n", b"old\n", "keep", True, True),
        (b"mine\n", None, b"old\n", "keep", True, True),
        (b"mine\n", None, None, "keep", True, False),
        (b"mine\n", b"new\n", None, "keep", True, True),
    ],
)
def test_three_ways(
    tmp_path: Path,
    present: bytes | None,
    source: bytes | None,
    recorded: bytes | None,
    action: str,
    edited: bool,
    conflict: bool,
) -> None:
    target = tmp_path / "a.txt"
    if present is not None:
        target.write_bytes(present)
    before = CaptionCopy(source="a.txt", source_sha256=sha(recorded), sha256=sha(recorded)) if recorded else None
    known = {sha(recorded)} if recorded else set()
    plan = plan_caption(target, ("a.txt", source) if source else None, before, known)
    assert (plan.action, plan.edited, plan.conflict) == (action, edited, conflict)
    assert plan.action != "write" or plan.text == source
