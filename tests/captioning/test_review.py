from pathlib import Path

import pytest

from fluxkit.captioning.review import comment_lines, review, reviewed_text
from fluxkit.captioning.store import CaptionStore

HEADER = comment_lines(Path("/photos/a.jpg"), "behitek", 1, 2)


def edited(*lines: str) -> str:
    return "\n".join([*HEADER, *lines]) + "\n"


def test_the_picture_s_path_is_above_the_caption() -> None:
    assert HEADER[0] == "# 1/2: /photos/a.jpg"
    assert all(line.startswith("# ") for line in HEADER)
    assert comment_lines(Path("a\nb"), "behitek", 1, 1)[0].count("\n") == 0


@pytest.mark.parametrize(
    ("saved", "before", "after"),
    [
        (edited("behitek a man"), "behitek a man\n", "behitek a man\n"),
        (edited("a man"), "behitek x\n", "behitek a man\n"),
        (edited("behitek a man", "in red"), "behitek x\n", "behitek a man in red\n"),
        (edited("behitek one", "two"), "behitek x\nbehitek y\n", "behitek one\nbehitek two\n"),
        (edited("# behitek hash"), "behitek x\n", "behitek # behitek hash\n"),
        (edited("", "  "), "behitek x\n", ""),
        ("behitek without comments", "behitek x\n", "behitek without comments\n"),
        (edited("behitek\ta\r man").replace("\n", "\r\n"), "behitek x\n", "behitek a man\n"),
    ],
)
def test_what_was_saved_becomes_the_caption(saved: str, before: str, after: str) -> None:
    assert reviewed_text(saved, HEADER, before, "behitek") == after


def test_each_is_opened_once_and_nothing_is_lost(tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.jpg" for name in "abc"]
    for picture in pictures:
        picture.with_suffix(".txt").write_text(f"behitek {picture.stem}\n")
    store = CaptionStore.open(tmp_path, tmp_path / "cache" / "captions.json")
    shown: list[str] = []

    def edit(text: str) -> str | None:
        shown.append(text)
        return {1: text.replace("behitek a\n", "behitek new a\n"), 2: None, 3: ""}[len(shown)]

    outcomes = [seen.outcome for seen in review(pictures, store, "behitek", edit)]
    assert outcomes == ["changed", "unchanged", "emptied"]
    assert [p.with_suffix(".txt").read_text() for p in pictures] == ["behitek new a\n", "behitek b\n", "behitek c\n"]
    assert str(pictures[1]) in shown[1].splitlines()[0]
    again = CaptionStore.open(tmp_path, tmp_path / "cache" / "captions.json")
    assert not any(again.needs_review(picture) for picture in pictures)
    pictures[0].with_suffix(".txt").write_text("behitek changed since")
    assert again.needs_review(pictures[0])
