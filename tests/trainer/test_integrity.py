"""Damage to an installed trainer: seen, named and repaired; whole environments are left alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fluxkit.trainer import environment as environments
from fluxkit.trainer.integrity import find_damage, recorded_bytes, site_packages
from tests.trainer import test_environment as helpers


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> environments.Environment:
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    built: environments.Environment = helpers.install(helpers.make_lock(tmp_path / "wheels"))
    return built


def _site(root: Path) -> Path:
    site = site_packages(root)
    assert site is not None
    return site


def _rewrite(path: Path, *, keep_time: bool) -> None:
    """Same size, other bytes, as a new file: uv's cache shares the old one."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        later = (path.parents[4] / environments.MARKER).stat().st_mtime + 5
        os.utime(path, (later, later))


def _record(root: Path) -> Path:
    return _site(root) / "simpletuner-4.8.0.dist-info" / "RECORD"


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is gone": (
        lambda root: (_site(root) / "simpletuner/weights.bin").unlink(),
        "simpletuner/weights.bin is missing",
    ),
    "a file has other bytes": (
        lambda root: _rewrite(_site(root) / "simpletuner/weights.bin", keep_time=False),
        "simpletuner/weights.bin is altered",
    ),
    "a package's list is gone": (lambda root: _record(root).unlink(), "file list of simpletuner is missing"),
    "a package's list was edited": (lambda root: _record(root).write_text(""), "file list of simpletuner is"),
    "the interpreter is gone": (lambda root: (root / "bin/python").unlink(), ""),
    "it is no environment": (lambda root: (root / "pyvenv.cfg").unlink(), "pyvenv.cfg"),
    "the options are gone": (lambda root: (root / environments.OPTIONS).unlink(), environments.OPTIONS),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_the_next_install_repairs_it(
    kind: str, tmp_path: Path, environment: environments.Environment
) -> None:
    damage, named = DAMAGE[kind]
    damage(environment.root)
    lines: list[str] = []
    helpers.install(helpers.make_lock(tmp_path / "wheels"), lines)
    assert named in lines[0]
    assert environments.is_ready(environment)
    assert find_damage(environment.root, deep=True) == []


def test_a_file_altered_in_place_is_not_taken_from_uvs_cache_again(
    tmp_path: Path, environment: environments.Environment
) -> None:
    file = _site(environment.root) / "simpletuner/weights.bin"
    if file.stat().st_nlink == 1:
        pytest.skip("uv copies on this filesystem")
    with file.open("a") as handle:
        handle.write("x")
    assert [one.shared for one in find_damage(environment.root)] == [True]
    helpers.install(helpers.make_lock(tmp_path / "wheels"))
    assert file.stat().st_size == 1000


def test_only_the_deep_look_finds_a_file_with_the_old_size_and_time(
    tmp_path: Path, environment: environments.Environment
) -> None:
    _rewrite(_site(environment.root) / "simpletuner/weights.bin", keep_time=True)
    assert find_damage(environment.root) == []
    assert [one.what for one in find_damage(environment.root, deep=True)] == ["simpletuner/weights.bin is altered"]
    lines: list[str] = []
    environments.install(helpers.make_lock(tmp_path / "wheels"), report=lines.append, deep=True)
    assert "damaged" in lines[0]


def test_certificates_of_a_company_and_new_files_are_no_damage(environment: environments.Environment) -> None:
    pem = _site(environment.root) / "certifi/cacert.pem"
    pem.unlink()
    pem.write_text("-----BEGIN CERTIFICATE-----\nour company's\n")
    (_site(environment.root) / "simpletuner" / "__pycache__").mkdir()
    assert find_damage(environment.root, deep=True) == []


def test_an_environment_of_the_first_fluxkit_is_whole_and_is_checked_by_its_own_lists(
    environment: environments.Environment,
) -> None:
    marker = environment.root / environments.MARKER
    marker.write_text('{"digest": "%s", "python": "3.12.1"}' % environment.digest)  # noqa: UP031
    environment.options_file.unlink()
    assert find_damage(environment.root) == []
    (_site(environment.root) / "simpletuner/weights.bin").unlink()
    assert len(find_damage(environment.root)) == 1


def test_the_size_is_what_the_packages_say(environment: environments.Environment) -> None:
    assert 1000 < recorded_bytes(environment.root) < 100_000
