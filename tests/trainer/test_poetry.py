from pathlib import Path

import pytest

from fluxkit.errors import InstallError
from fluxkit.trainer.poetry import is_poetry_project, read_poetry_project

HEAD = '[tool.poetry]\nname = "it"\nversion = "1"\npackage-mode = false\n[tool.poetry.dependencies]\npython = "^3.10"\n'


def project(folder: Path, dependencies: str, lock: str = "") -> Path:
    (folder / "pyproject.toml").write_text(HEAD + dependencies)
    if lock:
        (folder / "poetry.lock").write_text(lock)
    return folder


@pytest.mark.parametrize(
    ("poetry", "requirement"),
    [
        ('a = "^2.7.1"', "a (>=2.7.1,<3.0.0)"),
        ('a = "^0.2.3"', "a (>=0.2.3,<0.3.0)"),
        ('a = "^0.0.3"', "a (>=0.0.3,<0.0.4)"),
        ('a = "^3.2.0.post2"', "a (>=3.2.0.post2,<4.0.0)"),
        ('a = "^1.0.0rc4"', "a (>=1.0.0rc4,<2.0.0)"),
        ('a = "~1.2"', "a (>=1.2,<1.3)"),
        ('a = "1.*"', "a (==1.*)"),
        ('a = "*"', "a"),
        ('a = "1.2.3"', "a (==1.2.3)"),
        ('a = "<1.27"', "a (<1.27)"),
        ('a = { version = "^0.115", extras = ["standard"] }', "a[standard] (>=0.115,<0.116)"),
        ('a = { version = "1.0", python = "<3.11" }', 'a (==1.0) ; python_version < "3.11"'),
        ('a = { version = "^1", platform = "linux" }', 'a (>=1,<2) ; sys_platform == "linux"'),
        ('a = "^1.0 || ^2.0"', "a (>=2.0,<3.0)"),  # no "or" in PEP 508: the newest span that upstream allows
        ('a = { version = "^2.5.1+cu124", source = "other" }', "a (>=2.5.1,<3.0.0)"),
    ],
)
def test_poetrys_constraints_in_pips_words(tmp_path: Path, poetry: str, requirement: str) -> None:
    source = '\n[[tool.poetry.source]]\nname = "other"\nurl = "https://other.example/cu124"\n'
    assert read_poetry_project(project(tmp_path, poetry + source)).requirements == (requirement,)


def test_pythons_range_is_a_specifier(tmp_path: Path) -> None:
    assert read_poetry_project(project(tmp_path, "")).python == ">=3.10,<4.0"


def test_what_another_index_gave_is_named(tmp_path: Path) -> None:
    text = (
        'a = { version = "^1", source = "other" }\n[[tool.poetry.source]]\nname = "other"\nurl = "https://o.example"\n'
    )
    assert read_poetry_project(project(tmp_path, text)).other_indexes == (("a", "https://o.example"),)


def test_optional_packages_and_groups_are_left_out_and_other_groups_are_not(tmp_path: Path) -> None:
    text = (
        'a = "*"\nb = { version = "*", optional = true }\n'
        '[tool.poetry.group.plus.dependencies]\nc = "*"\n'
        '[tool.poetry.group.dev.dependencies]\nd = "*"\n'
        '[tool.poetry.group.rare]\noptional = true\n[tool.poetry.group.rare.dependencies]\ne = "*"\n'
    )
    assert read_poetry_project(project(tmp_path, text)).requirements == ("a", "c")  # main, plus


def test_a_package_from_a_repository_waits_for_a_version(tmp_path: Path) -> None:
    text = 'My_Needle = { git = "https://example.org/n", rev = "dev", extras = ["x"], platform = "linux" }\n'
    lock = '[[package]]\nname = "my-needle"\nversion = "0.3.0.dev0"\n[package.source]\ntype = "git"\n'
    found = read_poetry_project(project(tmp_path, text, lock))
    (needle,) = found.taken_from_git
    assert found.requirements == ()
    assert found.preferences == ()
    assert (needle.name, needle.locked) == ("my-needle", "0.3.0.dev0")
    assert needle.pinned("0.3.0") == 'my-needle[x]==0.3.0 ; sys_platform == "linux"'


def test_upstreams_lock_becomes_preferences_but_for_split_packages(tmp_path: Path) -> None:
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        for name, version in [("torch", "2.5.1+cu124"), ("numpy", "2.2.6"), ("numpy", "2.3.2"), ("a_b", "1")]
    )
    assert read_poetry_project(project(tmp_path, "", lock)).preferences == ("torch==2.5.1", "a-b==1")


@pytest.mark.parametrize("text", ["[tool.poetry", HEAD + 'a = "not a version"', HEAD + "a = 3"])
def test_a_damaged_project_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InstallError, match=r"pyproject\.toml") as error:
        read_poetry_project(tmp_path)
    assert error.value.fix


def test_which_projects_are_poetrys(tmp_path: Path) -> None:
    assert is_poetry_project(project(tmp_path, ""))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "it"\n[tool.poetry.dependencies]\na = "*"\n')
    assert not is_poetry_project(tmp_path)
    assert not is_poetry_project(tmp_path / "nowhere")
