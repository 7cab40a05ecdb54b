import json
from pathlib import Path

import pytest

from fluxkit.captioning import models
from fluxkit.captioning.models import find_model
from fluxkit.errors import UserError


def folder_with(tmp_path: Path, config: object) -> str:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize(("model_type", "kind"), [("florence2", "florence"), ("llava", "chat"), ("qwen2_vl", "chat")])
def test_kinds(tmp_path: Path, model_type: str, kind: str) -> None:
    spec = find_model(folder_with(tmp_path, {"model_type": model_type}))
    assert (spec.name, spec.kind, spec.local) == (str(tmp_path), kind, True)


def test_the_form_of_florence_that_brings_code_is_refused_with_the_one_that_does_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="brings its own code") as caught:
        find_model(folder_with(tmp_path, {"model_type": "florence2", "auto_map": {"AutoConfig": "x.Y"}}))
    assert models.DEFAULT_MODEL in caught.value.fix


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, 'is a "bert"'),
        ({}, "says of no kind"),
        ("[1]", "no model's config"),
        ("{", "can't be read"),
    ],
)
def test_other_models_are_refused_before_they_are_loaded(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_model(folder_with(tmp_path, config))
    assert caught.value.fix


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "word"])
def test_no_folder_and_no_id(name: str) -> None:
    with pytest.raises(UserError, match="no such folder, and no id"):
        find_model(name)


def test_offline_and_not_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="can't be reached, and some/model is not in its cache") as caught:
        find_model("some/model")
    assert "--model" in caught.value.fix
