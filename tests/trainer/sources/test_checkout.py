from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluxkit.errors import InstallError, UserError
from fluxkit.trainer.index import Published
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.releases import find_release
from fluxkit.trainer.sources import checkout as module
from fluxkit.trainer.sources.checkout import lock_from_checkout, open_checkout, without_package

FLAT, PACKAGED = "1.4.0", "4.7.0"
SOURCE = Source("git", "", "c" * 40)


def test_the_shape_tells_the_launcher(tmp_path: Path, write_release) -> None:
    write_release(tmp_path / "flat", FLAT)
    write_release(tmp_path / "packaged", PACKAGED)
    flat, packaged = open_checkout(tmp_path / "flat"), open_checkout(tmp_path / "packaged")
    assert (flat.script, flat.packaged, flat.version) == ("train.sh", False, "")
    assert (packaged.script, packaged.packaged, packaged.version) == ("simpletuner/train.sh", True, PACKAGED)


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "There is no folder"), ("empty", "has no launcher")])
def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path, folder: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=said) as error:
        open_checkout(tmp_path / folder)
    assert error.value.fix


def test_one_package_leaves_a_requirements_file_with_its_hashes() -> None:
    text = (
        "# made by hand\nsimple==1 \\\n    --hash=sha256:0\nSimpleTuner==4.8.0 \\\n    --hash=sha256:1 \\\n"
        "    --hash=sha256:2\nsimpletuner-tools==1 \\\n    --hash=sha256:3\nsimpletuner @ file:///x\n"
    )
    kept = "# made by hand\nsimple==1 \\\n    --hash=sha256:0\nsimpletuner-tools==1 \\\n    --hash=sha256:3\n"
    assert without_package(text, "simpletuner") == kept


def test_a_tested_release_takes_the_shipped_lock_without_the_wheel(tmp_path: Path, write_release) -> None:
    write_release(tmp_path, "4.8.0")
    lock = lock_from_checkout(
        find_release("4.8.0"), "cpu", open_checkout(tmp_path), SOURCE, "2026-08-21", lambda _: None
    )
    assert lock.origin == "shipped"
    assert lock.source == SOURCE
    assert "torch==2.11.0" in lock.requirements
    assert "simpletuner==" not in lock.requirements


@pytest.mark.usefixtures("wheels")
def test_a_packages_own_requirements_are_resolved_and_nothing_is_written_to_it(tmp_path: Path, write_release) -> None:
    folder = tmp_path / "it"
    write_release(folder, PACKAGED)
    before = sorted(folder.rglob("*"))
    lock = lock_from_checkout(
        find_release(PACKAGED), "cpu", open_checkout(folder), SOURCE, "2026-08-21", lambda _: None
    )
    assert lock.requirements.startswith("tiny-dependency==1.0 \\\n    --hash=sha256:")
    assert (lock.origin, lock.as_of) == ("resolved", "2026-08-21")
    assert lock.release.python == ">=3.10"  # its own word, not that of the nearest release that fluxkit lists
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("wheels")
def test_requirements_that_can_not_be_met_are_told_by_the_releases_name(tmp_path: Path, write_release) -> None:
    write_release(tmp_path, PACKAGED)
    project = tmp_path / "pyproject.toml"
    project.write_text(project.read_text().replace("tiny-dependency>=1", "tiny-dependency>=2"))
    with pytest.raises(InstallError, match=r"satisfies SimpleTuner 4\.7\.0"):
        lock_from_checkout(find_release(PACKAGED), "cpu", open_checkout(tmp_path), SOURCE, "2026-08-21", lambda _: None)


def poetry_lock(folder: Path, monkeypatch: pytest.MonkeyPatch, locked: str, found: list[tuple[str, str]]) -> Lock:
    """Lock a flat checkout whose `needle` comes from a repository; `found` is what the index has of it."""
    project = folder / "pyproject.toml"
    project.write_text(project.read_text() + 'needle = { git = "https://example.org/needle" }\n')
    if locked:
        entry = f'[[package]]\nname = "needle"\nversion = "{locked}"\n[package.source]\ntype = "git"\n'
        (folder / "poetry.lock").write_text(f'{entry}\n[[package]]\nname = "torch"\nversion = "2.5.1+cu124"\n')
    releases = {
        version: Published(version, datetime.fromisoformat(day).replace(tzinfo=UTC), ">=3.10") for version, day in found
    }
    monkeypatch.setattr(module, "published", lambda *_: releases)
    monkeypatch.setattr(module, "resolve_requirements", lambda wanted, **options: f"{wanted}\n{options}\n")
    said: list[str] = []
    lock = lock_from_checkout(find_release(FLAT), "cpu", open_checkout(folder), SOURCE, "2025-02-10", said.append)
    assert any("needle" in line and "taken instead" in line for line in said)
    return lock


@pytest.mark.parametrize(
    ("locked", "version", "day"),
    [
        ("0.35.0.dev0", "0.35.0", "2025-03-01"),  # what upstream's lock leads to
        ("0.34.0", "0.34.0", "2025-02-10"),  # a release that was there already: no later day than the rest
        ("", "0.35.0", "2025-03-01"),  # no lock: the first one after, for the code was ahead of the one before
        ("9.0.dev0", "0.36.0", "2025-06-01"),  # never released: the newest
    ],
)
def test_a_package_from_a_repository_becomes_the_release_that_came_next(
    tmp_path: Path, write_release, monkeypatch: pytest.MonkeyPatch, locked: str, version: str, day: str
) -> None:
    write_release(tmp_path, FLAT)
    found = [("0.33.0", "2024-12-01"), ("0.34.0", "2025-01-01"), ("0.35.0", "2025-03-01"), ("0.36.0", "2025-06-01")]
    text = poetry_lock(tmp_path, monkeypatch, locked, found).requirements
    assert f"needle=={version}\n" in text
    assert f"'later': {{'needle': '{day}'}}" in text
    assert ("torch==2.5.1" in text) == bool(locked)


def test_a_package_that_the_index_never_had_is_named(tmp_path: Path, write_release, monkeypatch) -> None:
    write_release(tmp_path, FLAT)
    with pytest.raises(InstallError, match="needle") as error:
        poetry_lock(tmp_path, monkeypatch, "", [])
    assert error.value.fix


def test_another_layout_than_the_pinned_versions_is_refused(tmp_path: Path, write_release) -> None:
    write_release(tmp_path, FLAT)
    with pytest.raises(UserError, match=r"older than 2\.2"):
        lock_from_checkout(find_release(PACKAGED), "cpu", open_checkout(tmp_path), SOURCE, "2026-01-01", lambda _: None)
