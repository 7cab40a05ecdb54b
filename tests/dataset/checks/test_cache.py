import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.checks import engine
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.faces import Face
from fluxkit.dataset.model import DatasetReport, DatasetRules

RULES = DatasetRules(trigger="behitek", resolutions=(64,))


class Detector:
    name = "stub"

    def detect(self, _image: object) -> list[Face]:
        return [Face(10, 10, 30, 30, 1.0)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_demo_dataset(tmp_path / "photos", "behitek", "man", size=64)
    return tmp_path / "photos"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are measured."""
    names: list[str] = []
    real = engine.measure

    def counted(handle, detector):  # type: ignore[no-untyped-def]
        names.append(Path(f"/proc/self/fd/{handle.fileno()}").readlink().name)
        return real(handle, detector)

    monkeypatch.setattr(engine, "measure", counted)
    return names


def check(photos: Path, **options: object) -> DatasetReport:
    return check_dataset(photos, RULES, cache=photos.parent / "cache" / "validate.sqlite", **options)  # type: ignore[arg-type]


def test_a_second_run_measures_nothing_and_says_the_same(photos: Path, measured: list[str]) -> None:
    (photos / "demo-02.png").write_bytes((photos / "demo-02.png").read_bytes()[:-30])
    first = check(photos)
    assert len(measured) == 6
    assert check(photos) == first
    assert len(measured) == 6


def test_a_changed_file_is_measured_again_even_with_the_same_size_and_time(photos: Path, measured: list[str]) -> None:
    check(photos)
    measured.clear()
    path = photos / "demo-03.png"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    report = check(photos)
    assert measured == ["demo-03.png"]
    assert "image.unreadable" in {finding.code for finding in report.findings}


def test_a_renamed_or_copied_file_is_known_by_its_content(photos: Path, measured: list[str]) -> None:
    first = check(photos)
    measured.clear()
    (photos / "demo-01.png").rename(photos / "renamed.png")
    shutil.copyfile(photos / "demo-02.png", photos / "copy.png")
    report = check(photos)
    assert measured == []
    assert len(report.images) == len(first.images) + 1
    assert {facts.path.name for facts in report.images} >= {"renamed.png", "copy.png"}


def test_another_detector_measures_again(photos: Path, measured: list[str]) -> None:
    check(photos)
    with_faces = check(photos, faces=Detector())
    assert len(measured) == 12
    assert check(photos, faces=Detector()) == with_faces
    assert len(measured) == 12
    assert all(facts.faces == (Face(10, 10, 30, 30, 1.0),) for facts in with_faces.images)


def test_a_version_of_its_own(photos: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check(photos)
    monkeypatch.setattr("fluxkit.dataset.checks.cache.VERSION", 10**6)
    check(photos)
    assert len(measured) == 12


@pytest.mark.parametrize("data", ["", "{", "null", "[1]", '{"problem": null}', "x' ; DROP TABLE measured"])
def test_damaged_entries_are_measured_again(photos: Path, measured: list[str], data: str) -> None:
    first = check(photos)
    with sqlite3.connect(photos.parent / "cache" / "validate.sqlite") as database:
        database.execute("UPDATE measured SET data = ?", (data,))
    database.close()
    assert check(photos) == first
    assert len(measured) == 12
    assert check(photos) == first, "and remembered again"
    assert len(measured) == 12


class Watched(sqlite3.Connection):
    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + bytes(4000)])
def test_a_damaged_file_is_replaced(
    photos: Path, measured: list[str], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[Watched] = []
    connect = sqlite3.connect

    def watched(*args: Any, **options: Any) -> Watched:
        connections.append(connect(*args, factory=Watched, **options))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    first = check(photos)
    (photos.parent / "cache" / "validate.sqlite").write_bytes(content)
    assert check(photos) == first
    assert check(photos) == first
    assert len(measured) == 12
    assert [each for each in connections if not each.closed] == []


def test_a_file_that_another_process_writes_to_is_left_alone(
    photos: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = check(photos)
    file = photos.parent / "cache" / "validate.sqlite"
    inode = file.stat().st_ino
    connect = sqlite3.connect
    other = connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.01}))
    assert check(photos) == first
    assert len(measured) == 12
    other.close()
    assert file.stat().st_ino == inode
    assert check(photos) == first
    assert len(measured) == 12, "it remembered all the while"


def test_a_page_damaged_in_the_middle(photos: Path) -> None:
    first = check(photos)
    file = photos.parent / "cache" / "validate.sqlite"
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xaa" * (len(content) - 4096)
    file.write_bytes(content)
    assert check(photos) == first


def test_a_folder_that_cannot_be_written_only_costs_time(photos: Path, measured: list[str]) -> None:
    blocked = photos.parent / "cache"
    blocked.write_text("a file where the folder should be")
    first = check(photos)
    assert check(photos) == first
    assert len(measured) == 12
