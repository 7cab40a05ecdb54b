"""The real loading and generating code on tiny models of the real classes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.captioning import captioner as module
from fluxkit.captioning.captioner import load_captioner
from fluxkit.captioning.models import find_model
from fluxkit.captioning.run import Description
from fluxkit.errors import UserError


def pictures() -> list[Image.Image]:
    noise = Image.effect_noise((90, 70), 90).convert("RGB")
    return [Image.new("RGB", (80, 60), "red"), Image.new("RGB", (60, 200), "navy"), noise]


def alone(captioner: Any, images: list[Image.Image]) -> list[Description]:
    found = []
    for image in images:
        described = captioner.describe([image])
        assert described is not None
        found += described
    return found


@pytest.fixture(params=["tiny_florence", "tiny_llava", "tiny_idefics"])
def model(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_a_description_depends_on_its_picture_alone(model: Path) -> None:
    captioner = load_captioner(find_model(str(model)), "Describe this.", max_new_tokens=12)
    images = pictures()
    together = captioner.describe(images)
    assert together == alone(captioner, images)
    assert together is not None
    assert len({description.text for description in together}) > 1, "the pictures reach the words"
    assert all(set(description.text) <= set("abcdefghijklmnopqrstuvwxyz ") for description in together)


def test_the_limit_is_told_from_an_end(model: Path) -> None:
    captioner = load_captioner(find_model(str(model)), "Describe this.", max_new_tokens=3)
    described = captioner.describe(pictures()[:1])
    assert described is not None
    assert described[0].complete is False


def test_the_instruction_reaches_a_chat_model(tiny_llava: Path) -> None:
    image = pictures()[:1]
    said = [
        load_captioner(find_model(str(tiny_llava)), text, max_new_tokens=16).describe(image)
        for text in ("Describe the clothes.", "zzz zzz zzz zzz zzz zzz")
    ]
    assert said[0] != said[1]


def test_out_of_memory_is_no_exception(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    captioner: Any = load_captioner(find_model(str(model)), "x", max_new_tokens=3)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory")):
        with monkeypatch.context() as patch:
            patch.setattr(captioner._model, "generate", _raising(error))
            assert captioner.describe(pictures()) is None
    with monkeypatch.context() as patch:
        patch.setattr(captioner._model, "generate", _raising(RuntimeError("shapes differ")))
        with pytest.raises(RuntimeError, match="shapes differ"):
            captioner.describe(pictures())


def _raising(error: Exception) -> Any:
    def generate(**_: object) -> None:
        raise error

    return generate


def test_without_a_chat_template_the_fix_is_named(tiny_llava: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template") as caught:
        load_captioner(find_model(str(folder)), "x")
    assert "-Instruct" in caught.value.fix


@pytest.mark.parametrize("damage", ["missing weights", "cut weights", "no tokenizer", "broken template"])
def test_a_damaged_folder_is_one_message(tiny_llava: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "missing weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif damage == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    else:
        (folder / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(UserError, match=r"can't be loaded|needs a package") as caught:
        load_captioner(find_model(str(folder)), "x")
    assert "\n" not in caught.value.message


def test_code_of_a_model_is_never_run(tiny_llava: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llava, tmp_path / "model")
    evidence = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(evidence)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Evil", "AutoProcessor": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_captioner(find_model(str(folder)), "x", max_new_tokens=3).describe(pictures()[:1])
    assert not evidence.exists()


def test_no_chatter(tiny_florence: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_captioner(find_model(str(tiny_florence)), "x", max_new_tokens=3).describe(pictures()[:1])
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert module.FLORENCE_TASK.startswith("<")
