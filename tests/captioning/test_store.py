import tempfile
from pathlib import Path
from typing import Any

import pytest

from fluxkit.captioning.store import CaptionStore, back_up, check_writable
from fluxkit.errors import UserError


@pytest.fixture
def store(tmp_path: Path) -> CaptionStore:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    return CaptionStore.open(tmp_path, tmp_path / "cache" / "captions.json")


def test_an_older_backup_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    names = []
    for text in ("first", "second", "third"):
        path.write_text(text)
        names.append(back_up(path).name)
    assert names == ["a.txt.bak", "a.txt.bak2", "a.txt.bak3"]
    assert [(tmp_path / name).read_text() for name in names] == ["first", "second", "third"]


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_missing_or_blank_is_written_without_a_backup(store: CaptionStore, content: str | None) -> None:
    path = store.root / "a.txt"
    if content is not None:
        path.write_text(content)
    assert store.is_missing(store.root / "a.jpg")
    assert store.write(store.root / "a.jpg", "behitek a man", "m") is None
    assert path.read_text() == "behitek a man\n"
    assert not store.is_missing(store.root / "a.jpg")


def test_what_a_model_made_is_known_again_until_anything_changes(store: CaptionStore) -> None:
    picture = store.root / "a.jpg"
    store.write(picture, "behitek a man", "model")
    again = CaptionStore.open(store.root, store.record_file)
    assert again.is_from(picture, "model")
    assert not again.is_from(picture, "another")
    picture.write_bytes(b"another picture")
    assert not again.is_from(picture, "model")
    picture.write_bytes(b"picture")
    picture.with_suffix(".txt").write_text("edited")
    assert not again.is_from(picture, "model")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"made": 3}'])
def test_a_damaged_record_is_an_empty_one(store: CaptionStore, damage: str) -> None:
    store.write(store.root / "a.jpg", "behitek a man", "model")
    store.record_file.write_text(damage)
    assert CaptionStore.open(store.root, store.record_file).made == {}


def test_a_folder_that_can_not_be_written_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    with pytest.raises(UserError, match="can't be written into") as caught:
        check_writable([tmp_path / "a.jpg"])
    assert "fluxkit prepare" in caught.value.fix
