from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer.lock import Lock, Source, shipped_lock
from fluxkit.trainer.lockfile import LockedPlatform, read_lock_file, with_lock, write_lock_file
from fluxkit.trainer.pin import Pin, locked
from fluxkit.trainer.releases import find_release


@pytest.fixture
def shipped() -> Lock:
    lock = shipped_lock(find_release("4.8.0"), "cpu")
    assert lock is not None
    return lock


def test_a_lock_comes_back_whole(tmp_path: Path, shipped: Lock) -> None:
    file = tmp_path / "fluxkit.lock"
    write_lock_file(file, with_lock({}, shipped, "3.12.4"))
    assert read_lock_file(file) == {"cpu": LockedPlatform(shipped, "3.12.4")}
    stamp = file.stat().st_mtime_ns
    write_lock_file(file, read_lock_file(file))
    assert file.stat().st_mtime_ns == stamp


def test_a_git_lock_keeps_its_commit_and_differs_from_another_commits(tmp_path: Path, shipped: Lock) -> None:
    source = Source("git", "https://example.org/it.git", "a" * 40)
    lock = replace(shipped, source=source, origin="resolved", requirements="click==8.1.8 --hash=sha256:00\n")
    write_lock_file(tmp_path / "fluxkit.lock", with_lock({}, lock, ""))
    assert read_lock_file(tmp_path / "fluxkit.lock")["cpu"].lock == lock
    assert lock.digest != replace(lock, source=replace(source, commit="b" * 40)).digest


def test_platforms_stay_together_until_the_release_changes(shipped: Lock) -> None:
    both = with_lock(with_lock({}, shipped, ""), replace(shipped, platform="cuda"), "")
    assert set(both) == {"cpu", "cuda"}
    newer = replace(shipped, release=replace(shipped.release, version="4.8.1"))
    assert set(with_lock(both, newer, "")) == {"cpu"}


def test_the_projects_own_lock_wins_over_the_shipped_one(tmp_path: Path, shipped: Lock) -> None:
    file = tmp_path / "fluxkit.lock"
    assert locked(Pin("4.8.0", "cpu"), file) == shipped
    older = replace(shipped, requirements="click==8.1.8 --hash=sha256:00\n", as_of="2026-08-01")
    write_lock_file(file, with_lock({}, older, ""))
    assert locked(Pin("4.8.0", "cpu"), file) == older
    # Another pin in fluxkit.toml: the lock is of no use to it.
    assert locked(Pin("4.8.0", "cuda"), file) == shipped_lock(shipped.release, "cuda")


def test_the_first_fluxkits_lock_without_packages_is_replaced(tmp_path: Path, shipped: Lock) -> None:
    file = tmp_path / "fluxkit.lock"
    file.write_text('[simpletuner]\nversion = "4.8.0"\nsource = "pypi"\nplatform = "cpu"\npython = "3.12.1"\n')
    assert read_lock_file(file) == {}
    assert locked(Pin("4.8.0", "cpu"), file) == shipped


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("absl-py==2.5.0", "absl-py==2.4.0"), "changed by hand"),
        (lambda text: text[: len(text) // 2], "can't be read"),
        (lambda text: text.replace("format = 1", "format = 2"), "newer fluxkit"),
        (lambda text: text.replace("[simpletuner]", "[trainer]"), "not a lock"),
    ],
)
def test_a_damaged_lock_is_named(tmp_path: Path, shipped: Lock, damage: object, said: str) -> None:
    file = tmp_path / "fluxkit.lock"
    write_lock_file(file, with_lock({}, shipped, ""))
    file.write_text(damage(file.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=said) as caught:
        read_lock_file(file)
    assert caught.value.fix
