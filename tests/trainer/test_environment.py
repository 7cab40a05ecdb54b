"""The real uv, on a made-up wheel of a few lines that answers as SimpleTuner's parser would."""

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.errors import InstallError
from fluxkit.files import sha256_file
from fluxkit.resources import resource
from fluxkit.trainer import environment as environments
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.releases import find_release

PARSER = """
import argparse, json
def get_argument_parser():
    parser = argparse.ArgumentParser()
    for name in {names}:
        parser.add_argument("--" + name)
    return parser
"""
NAMES = list(json.loads(resource("third_party", "simpletuner", "schemas", "4.8.0.json").read_text())["options"])


def make_lock(folder: Path, *, parser: str = PARSER.format(names=NAMES), wrong_hash: bool = False) -> Lock:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "simpletuner-4.8.0-py3-none-any.whl"
    info = "simpletuner-4.8.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("simpletuner/helpers/configuration/cmd_args.py", parser)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: simpletuner\nVersion: 4.8.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = "0" * 64 if wrong_hash else sha256_file(wheel)
    requirements = f"simpletuner==4.8.0 --hash=sha256:{digest}\n"
    return Lock(replace(find_release("4.8.0"), python=">=3.11"), "cpu", requirements)


@pytest.fixture(autouse=True)
def _local_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")


def install(lock: Lock, lines: list[str] | None = None) -> environments.Environment:
    report = (lambda _: None) if lines is None else lines.append
    return environments.install(lock, python=Path(sys.executable), report=report)


def test_installs_checks_and_marks_then_does_nothing(tmp_path: Path) -> None:
    lock = make_lock(tmp_path / "wheels")
    assert not environments.is_ready(environments.environment_for(lock))
    environment = install(lock)
    assert environments.is_ready(environment)
    assert environments.python_version(environment).startswith("3.")
    lines: list[str] = []
    assert install(lock, lines) == environment
    assert lines == []


def test_half_built_environment_is_rebuilt(tmp_path: Path) -> None:
    lock = make_lock(tmp_path / "wheels")
    environment = install(lock)
    (environment.root / environments.MARKER).unlink()
    (environment.root / "left-over").touch()
    lines: list[str] = []
    install(lock, lines)
    assert lines[0] == "Removing a half-built environment"
    assert environments.is_ready(environment)
    assert not (environment.root / "left-over").exists()


def test_wrong_hash_is_refused_and_leaves_no_marker(tmp_path: Path) -> None:
    lock = make_lock(tmp_path / "wheels", wrong_hash=True)
    with pytest.raises(InstallError, match="hash") as error:
        install(lock)
    assert error.value.fix
    assert not environments.is_ready(environments.environment_for(lock))


def test_no_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = make_lock(tmp_path / "wheels")
    monkeypatch.delenv("UV_FIND_LINKS")
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(InstallError, match="can't be reached"):
        install(lock)


@pytest.mark.parametrize(
    ("parser", "said"),
    [("raise ImportError('torch is broken')", "torch is broken"), (PARSER.format(names=[*NAMES, "alien"]), "alien")],
)
def test_trainer_that_does_not_answer_as_expected_is_not_ready(tmp_path: Path, parser: str, said: str) -> None:
    lock = make_lock(tmp_path / "wheels", parser=parser)
    with pytest.raises(InstallError, match=said):
        install(lock)
    assert not environments.is_ready(environments.environment_for(lock))


def test_full_or_forbidden_disk_is_an_install_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = make_lock(tmp_path / "wheels")
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLUXKIT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(InstallError, match="can't be written"):
        install(lock)
