import errno
from pathlib import Path

import pytest

from fluxkit import files
from fluxkit.errors import UserError


def test_a_failed_write_keeps_the_old_file_and_leaves_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"old": True})

    def die_half_way() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        die_half_way()
    assert files.read_json(target) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_a_user_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No space left") as caught, files.atomic_path(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "disk space" in caught.value.fix


def test_text_arrives_unchanged(tmp_path: Path) -> None:
    text = 'quote " {{ braces }} newline\r\n and 🦊'
    files.write_text(tmp_path / "t.txt", text)
    assert (tmp_path / "t.txt").read_bytes().decode() == text


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json can't be read"):
        files.read_json(tmp_path / "x.json")
