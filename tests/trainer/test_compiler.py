"""What compiling on a GPU needs is looked for before a training starts."""

import os
import sys
from pathlib import Path

import pytest

from fluxkit.trainer.compiler import compiles, missing_for_compiling


@pytest.mark.parametrize(("options", "answer"), [
    ({"dynamo_backend": "inductor"}, True), ({"dynamo_backend": "no"}, False), ({"dynamo_backend": None}, False),
    ({}, False),
])  # fmt: skip
def test_only_a_backend_compiles(options: dict[str, str], answer: bool) -> None:
    assert compiles(options) is answer


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


def program(path: Path, code: str = "") -> Path:
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("path")
def test_without_a_compiler_it_is_named() -> None:
    assert missing_for_compiling() == ("a C compiler (gcc)",)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_gcc_or_clang_will_do(path: Path, name: str) -> None:
    program(path / name)
    assert missing_for_compiling() == ()


def test_the_one_in_cc_is_taken_and_must_be_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "gcc")
    monkeypatch.setenv("CC", "mycc")
    assert missing_for_compiling() == ("a C compiler (gcc)",)
    monkeypatch.setenv("CC", os.fspath(program(path / "mycc")))
    assert missing_for_compiling() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="the trainer compiles on Linux alone")
@pytest.mark.parametrize(("code", "missing"), [
    ("echo False", ("Python's headers (Python.h)",)), ("echo True", ()), ("exit 1", ()),
])  # fmt: skip
def test_headers_are_those_of_the_trainers_interpreter(path: Path, code: str, missing: tuple[str, ...]) -> None:
    program(path / "gcc")
    assert missing_for_compiling(program(path / "python", code)) == missing


def test_a_real_interpreter_is_asked() -> None:
    assert "headers" not in " ".join(missing_for_compiling(Path(sys.executable)))
