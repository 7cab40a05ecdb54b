import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import load_project
from fluxkit.project.scaffold import scaffold
from fluxkit.project.tomltext import config_toml, prompts_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def config(**sections: Any) -> ProjectConfig:
    base = {"project": {"name": "p", "trigger": "behitek", "subject": "man"}}
    return ProjectConfig.model_validate(base | sections)


def test_a_new_project_loads_and_says_what_was_asked(tmp_path: Path) -> None:
    wanted = config(train={"profile": "12gb", "options": {"lora_rank": 8, "x": [True, "a#b"]}}, env={"A": 'b"c'})
    report = scaffold(tmp_path / "new", wanted)
    assert {path.name for path in report.written} == {"fluxkit.toml", "prompts.toml", ".gitignore", "README.md"}
    assert report.kept == ()
    project = load_project(tmp_path / "new")
    assert project.config == wanted
    assert len(project.prompts) == 8
    assert all(text.startswith("behitek ") and "man" in text and "{" not in text for text in project.prompts.values())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "prompts.toml").write_text("mine")
    first = scaffold(tmp_path, config())
    assert [path.name for path in first.kept] == ["prompts.toml"]
    assert (tmp_path / "prompts.toml").read_text() == "mine"
    second = scaffold(tmp_path, config(train={"steps": 5}))
    assert second.written == ()
    assert len(second.kept) == 4


@pytest.mark.parametrize(
    ("dataset", "line"),
    [("dataset", "/dataset/"), ("my photos/#1 [x]", r"/my\ photos/#1\ \[x\]/"), ("/elsewhere", None), ("../up", None)],
)
def test_git_ignores_photos_and_results(tmp_path: Path, dataset: str, line: str | None) -> None:
    scaffold(tmp_path, config(dataset={"path": dataset}))
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert {"/runs/", "/samples/", "/cache/", "/config/"} <= set(lines)
    assert line is None or line in lines
    assert not any("elsewhere" in other or "up" in other for other in lines)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        scaffold(tmp_path / "file", config())


def test_given_prompts_arrive_unchanged(tmp_path: Path) -> None:
    prompts = {"a": '{trigger} "quoted" {{ x }}\n😀', "b-2": "\\ # '''"}
    scaffold(tmp_path, config(), prompts=prompts)
    assert tomllib.loads((tmp_path / "prompts.toml").read_bytes().decode())["prompts"] == prompts


@given(TEXT.filter(str.strip), st.dictionaries(TEXT, TEXT | st.integers(-(2**62), 2**62) | st.lists(st.booleans())))
def test_any_value_survives_the_file(subject: str, options: dict[str, Any]) -> None:
    wanted = config(project={"name": "p", "trigger": "t", "subject": subject}, train={"options": options})
    assert ProjectConfig.model_validate(tomllib.loads(config_toml(wanted))) == wanted


@given(st.dictionaries(TEXT, TEXT))
def test_any_prompt_survives_the_file(prompts: dict[str, str]) -> None:
    assert tomllib.loads(prompts_toml(prompts))["prompts"] == prompts


def test_every_field_can_be_written() -> None:
    wanted = config(
        model={"base": "/models/flux", "revision": "main", "adapter": "standard"},
        train={"validation_prompt": "x", "learning_rate": 1e-7},
        lycoris={"algo": "lokr", "apply_preset": {"target_module": ["Attention"], "n": 1.5}},
        simpletuner={"source": "path", "path": "st", "platform": "cpu", "mirror": "file:///x"},
        sample={"base_seed": 7, "strength": 0.5, "batch_size": 4},
    )
    assert ProjectConfig.model_validate(tomllib.loads(config_toml(wanted))) == wanted
