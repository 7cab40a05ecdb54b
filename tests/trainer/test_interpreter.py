import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.errors import InstallError
from fluxkit.trainer import interpreter
from fluxkit.trainer.interpreter import find_interpreter
from fluxkit.trainer.releases import find_release

RELEASE = find_release("4.8.0")


def fake_python(path: Path, version: str, *, broken: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 127\n" if broken else f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH, nothing in uv, nothing in pyenv."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    fake_python(tmp_path / "uv", "[]")
    monkeypatch.setattr(interpreter, "uv_bin", lambda: str(tmp_path / "uv"))


def test_explicit_one_is_checked_by_running_it() -> None:
    fitting = replace(RELEASE, python=">=3.11")
    assert find_interpreter(fitting, Path(sys.executable)) == Path(sys.executable)


@pytest.mark.parametrize(("version", "broken"), [("3.9.1", False), ("3.12.1", True)])
def test_explicit_one_that_does_not_fit_is_refused(tmp_path: Path, version: str, broken: bool) -> None:
    with pytest.raises(InstallError, match=r">=3\.12") as error:
        find_interpreter(RELEASE, fake_python(tmp_path / "python", version, broken=broken))
    assert "--python" in error.value.fix


def test_broken_shim_on_path_is_passed_over_for_pyenv(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin" / "python3.12", "", broken=True)
    fake_python(tmp_path / "pyenv" / "versions" / "3.11.9" / "bin" / "python", "3.11.9")
    wanted = fake_python(tmp_path / "pyenv" / "versions" / "3.12.4" / "bin" / "python", "3.12.4")
    assert find_interpreter(RELEASE) == wanted


def test_measured_minor_comes_before_a_newer_one(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin" / "python3.13", "3.13.0")
    wanted = fake_python(tmp_path / "pyenv" / "versions" / "3.12.4" / "bin" / "python", "3.12.4")
    assert find_interpreter(RELEASE) == wanted


def test_none_anywhere_names_the_command() -> None:
    with pytest.raises(InstallError) as error:
        find_interpreter(RELEASE)
    assert "uv python install 3.12" in error.value.fix
