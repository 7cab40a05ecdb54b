"""The ledger: what it costs, what it survives, what it notices."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.errors import UserError
from fluxkit.sampling import journal
from fluxkit.sampling.ledger import Ledger, open_ledger, read_entries

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | Path):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)  # sees every file that Python opens; can't be taken off again


@contextmanager
def opened_files() -> Iterator[list[str]]:
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def picture(folder: Path, name: str) -> Path:
    path = folder / name
    Image.effect_noise((16, 16), 80).save(path)
    return path


def filled(folder: Path, count: int) -> None:
    with open_ledger(folder) as ledger:
        for i in range(count):
            ledger.add(f"key{i}", picture(folder, f"{i}.png"), {"seed": i})


def whole(folder: Path, *, verify: bool = False) -> list[str]:
    with open_ledger(folder, verify=verify) as ledger:
        return [key for key in ledger.entries if ledger.has(key)]


def test_ten_thousand_images_are_looked_through_without_opening_one(tmp_path: Path) -> None:
    facts = {"bytes": 5, "sha256": "x"}
    entries = {}
    for i in range(10_000):
        path = tmp_path / f"{i}.png"
        path.write_bytes(b"image")
        entries[f"key{i}"] = {"file": path.name, "mtime_ns": path.stat().st_mtime_ns, **facts}
    journal.write_manifest(tmp_path, entries)
    with opened_files() as opened:
        assert len(whole(tmp_path)) == 10_000
    assert len(opened) <= 4, f"the manifest, the lock and the journal: {opened[:10]}"


def test_an_image_more_costs_one_line_whatever_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    manifests: list[Path] = []
    write, manifest = os.write, journal.write_text
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or write(fd, data))
    monkeypatch.setattr(journal, "write_text", lambda path, text: manifests.append(path) or manifest(path, text))
    with open_ledger(tmp_path) as ledger:
        path = picture(tmp_path, "one.png")
        for i in range(300):
            ledger.add(f"key{i:03}", path, {"seed": 1})
        lines = [count for count in written if count > 50]  # a lock file is written too
        assert len(lines) == 300
        assert len(set(lines)) == 1
        assert manifests == []
    assert manifests == [tmp_path / "manifest.json"]


def test_the_manifest_is_whole_at_the_end_and_the_journal_gone(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    data = json.loads((tmp_path / "manifest.json").read_text())
    assert data["format"] == 1
    assert [(key, one["file"], one["seed"]) for key, one in data["images"].items()] == [
        ("key0", "0.png", 0),
        ("key1", "1.png", 1),
        ("key2", "2.png", 2),
    ]
    assert not (tmp_path / "manifest.journal").exists()


@pytest.mark.parametrize("text", ['"', "{{ x }}", "a\nb", "😀", "\ud800", "\x00"])
def test_facts_come_back_as_they_were(tmp_path: Path, text: str) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.add("key", picture(tmp_path, "a.png"), {"prompt": text})
        assert read_entries(tmp_path)["key"]["prompt"] == text, "from the journal"
    assert not (tmp_path / "manifest.journal").exists()
    assert read_entries(tmp_path)["key"]["prompt"] == text, "from the manifest"


def test_a_killed_run_loses_no_image_and_at_most_the_line_it_was_writing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)  # never closed: as a kill leaves it
    for i in range(3):
        ledger.add(f"key{i}", picture(tmp_path, f"{i}.png"), {"seed": i})
    data = (tmp_path / "manifest.journal").read_bytes()
    last = data.rindex(b"\n", 0, -1) + 1
    for kept in range(last, len(data) + 1):
        (tmp_path / "manifest.journal").write_bytes(data[:kept])
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        with open_ledger(tmp_path) as again:
            found = [key for key in again.entries if again.has(key)]
            assert not (tmp_path / "manifest.journal").exists(), "half a line must not be continued"
        assert found == ["key0", "key1", "key2"][: 2 + (kept >= len(data) - 1)]


def test_what_a_power_cut_leaves_of_a_journal(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("key0", picture(tmp_path, "0.png"), {})
    with (tmp_path / "manifest.journal").open("ab") as file:
        file.write(b"\0" * 600 + b'\n[1]\n"x"\n{"file": "no-key.png"}\n\xff\xfe\n')
    assert whole(tmp_path) == ["key0"]


def test_a_kill_between_manifest_and_journal_counts_nothing_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add("key0", picture(tmp_path, "0.png"), {"seed": 1})
    data = (tmp_path / "manifest.journal").read_bytes()
    whole(tmp_path)
    (tmp_path / "manifest.journal").write_bytes(data)
    assert whole(tmp_path) == ["key0"]
    assert len(json.loads((tmp_path / "manifest.json").read_text())["images"]) == 1


@pytest.mark.parametrize("kept", [0, 40, -1])
def test_a_truncated_image_is_noticed(tmp_path: Path, kept: int) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "1.png"
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:kept])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert whole(tmp_path) == ["key0"]


def test_an_altered_image_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "1.png"
    before = path.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    # The filesystem's clock ticks every few milliseconds, and all this may be over in one of them.
    os.utime(path, ns=(before, before + 10**9))
    assert whole(tmp_path) == ["key0"]


def test_verify_finds_what_size_and_time_hide(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    path = tmp_path / "1.png"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert whole(tmp_path) == ["key0", "key1"]
    assert whole(tmp_path, verify=True) == ["key0"]


def test_a_copied_folder_is_read_once_and_then_known(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    for path in tmp_path.glob("*.png"):
        os.utime(path, ns=(1, 1))
    assert whole(tmp_path) == ["key0", "key1"]
    with opened_files() as opened:
        assert whole(tmp_path) == ["key0", "key1"]
    assert not [name for name in opened if name.endswith(".png")]


def test_a_folder_of_the_first_version_goes_on(tmp_path: Path) -> None:
    picture(tmp_path, "0.png")
    picture(tmp_path, "1.png").write_bytes(b"damaged")
    images = {"key0": {"file": "0.png", "seed": 1}, "key1": {"file": "1.png", "seed": 2}}
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "images": images}, indent=2))
    assert whole(tmp_path) == ["key0"]
    with opened_files() as opened:
        assert whole(tmp_path) == ["key0"]
    assert not [name for name in opened if name.endswith("0.png")], "its size and time are known now"


def test_leftovers_of_a_killed_run_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    filled(tmp_path, 1)
    (tmp_path / ".man-1-abc.x8s7.tmp.png").write_bytes(b"half")
    (tmp_path / "notes.tmp.txt").write_text("mine")
    whole(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == [
        "0.png",
        "manifest.json",
        "notes.tmp.txt",
    ]


def test_a_folder_that_was_swapped_is_not_written_into(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    with open_ledger(folder) as ledger:
        ledger.add("key0", picture(folder, "0.png"), {})
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        path = picture(folder, "1.png")
        with pytest.raises(
            UserError, match=r"samples is gone: deleted, moved away, or its disk was unplugged"
        ) as caught:
            ledger.add("key1", path, {})
        (folder / "1.png").unlink()
        folder.rmdir()
        (tmp_path / "moved").rename(folder)  # plugged in again
        ledger.add("key2", picture(folder, "2.png"), {})
    assert "run the same command again" in caught.value.fix
    assert whole(folder) == ["key0", "key2"]


def test_a_full_disk_loses_nothing_that_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if data.startswith(b'{"key": "key1"'):
            return write(fd, data[:20])
        if b"key" not in data and len(data) > 20:
            raise OSError(28, "No space left on device")
        return write(fd, data)

    ledger = Ledger(tmp_path)
    ledger.add("key0", picture(tmp_path, "0.png"), {})
    path = picture(tmp_path, "1.png")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(UserError, match="No space left on device"):
            ledger.add("key1", path, {})
    assert whole(tmp_path) == ["key0"]


def test_reading_beside_a_writer(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.add("key0", picture(tmp_path, "0.png"), {"seed": 7})
        assert read_entries(tmp_path)["key0"]["seed"] == 7
        with pytest.raises(UserError, match="Another fluxkit makes images in"), open_ledger(tmp_path):
            pass
