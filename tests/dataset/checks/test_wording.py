from pathlib import Path

import pytest

from fluxkit.dataset.captions import caption_findings
from fluxkit.dataset.checks.wording import traits
from fluxkit.dataset.model import DatasetRules, Finding


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("behitek with long brown hair", "hair colour"),
        ("behitek, a dark-haired man", "hair colour"),
        ("behitek's hair is black", "hair colour"),
        ("a blonde woman", "hair colour"),
        ("behitek with blue eyes", "eye colour"),
        ("a green-eyed behitek", "eye colour"),
        ("behitek has pale skin", "skin colour"),
        ("a dark-skinned behitek", "skin colour"),
        ("behitek, a 25-year-old", "age"),
        ("behitek, a young asian man", "age"),
        ("behitek, a middle-aged woman", "age"),
        ("a woman in her early thirties", "age"),
        ("behitek, an asian man", "origin"),
        ("behitek with freckles", "features"),
        ("a round face and full lips", "features"),
    ],
)
def test_fixed_traits_are_named(text: str, kind: str) -> None:
    assert kind in traits(text)


@pytest.mark.parametrize(
    "text",
    [
        "behitek in a brown hair clip shop",
        "behitek wearing a black shirt and blue jeans, smiling",
        "behitek at an old house, soft light",
        "behitek with glasses and a beard, black background",
        "behitek with wet hair, eyes closed",
        "behitek holding a young tree, white wall",
        "behitek in a dark room, red light on the face",
        "a drawn portrait of a man in a red shirt, smiling, blue background",
    ],
)
def test_what_changes_is_no_trait(text: str) -> None:
    assert traits(text) == {}


def lint(folder: Path, texts: list[str], *, subject: str = "man") -> list[Finding]:
    pictures, captions = [], []
    for index, text in enumerate(texts):
        pictures.append(folder / f"{index}.jpg")
        captions.append(folder / f"{index}.txt")
        captions[-1].write_text(text)
    rules = DatasetRules(trigger="behitek", subject=subject)
    return list(caption_findings(folder, pictures, captions, rules))


VARIED = ["on a beach", "in a red coat", "by a window", "laughing", "at night", "in the snow"]


def test_good_captions(tmp_path: Path) -> None:
    assert lint(tmp_path, [f"behitek {text}" for text in VARIED]) == []


def test_a_trait_is_found_in_captions_of_people_only(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, ["behitek with brown eyes"])
    assert (finding.code, finding.severity) == ("caption.trait", "warning")
    assert '"brown eyes"' in finding.message
    assert lint(tmp_path, ["behitek with brown eyes"], subject="dog") == []


def test_captions_that_all_say_the_same(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, ["behitek a photo of a man"] * 4 + ["behitek: a man, a photo OF", "behitek smiles"])
    assert finding.code == "caption.alike"
    assert "5 of 6" in finding.message


def test_the_trigger_in_some_captions_only(tmp_path: Path) -> None:
    found = lint(tmp_path, ["behitek on a beach", "in a red coat", "laughing"])
    assert [finding.code for finding in found] == ["caption.no-trigger", "caption.no-trigger", "caption.trigger-some"]
    assert "2 of 3" in found[-1].message


def test_the_trigger_is_there_but_late(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, ["a photo of behitek"])
    assert (finding.code, finding.severity) == ("caption.trigger-late", "warning")


def test_the_trigger_in_other_letters(tmp_path: Path) -> None:
    (finding,) = lint(tmp_path, ["Behitek on a beach"])
    assert finding.code == "caption.no-trigger"
    assert "exactly these letters" in finding.message
