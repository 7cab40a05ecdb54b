from pathlib import Path

import pytest

from fluxkit.dataset import trigger
from fluxkit.dataset.trigger import trigger_findings, word_languages
from fluxkit.files import cache_dir


@pytest.mark.parametrize("trigger", ["behitek", "hieunv3", "ohwx", "zwx", "fluxdemo"])
def test_made_up_words_are_good(trigger: str) -> None:
    assert list(trigger_findings(trigger, Path())) == []


@pytest.mark.parametrize(
    ("trigger", "code", "severity"),
    [
        ("be hitek", "spaces", "error"),
        ("be\nhitek", "spaces", "error"),
        ("behi-tek", "characters", "error"),
        ("{trigger}", "characters", "error"),
        ("12345", "characters", "error"),
        ("", "characters", "error"),
        ("zq", "short", "error"),
        ("behitekbehitekbehitek", "long", "warning"),
        ("behitök", "not-ascii", "warning"),
        ("face", "dictionary", "error"),
        ("Flower", "dictionary", "error"),
        ("maison", "dictionary", "error"),
        ("haus", "dictionary", "error"),
        ("sks", "dictionary", "warning"),
    ],
)
def test_bad_triggers(trigger: str, code: str, severity: str) -> None:
    finding = next(iter(trigger_findings(trigger, Path())))
    assert (finding.code, finding.severity) == (f"trigger.{code}", severity)
    assert finding.fix


def test_languages_are_named() -> None:
    (finding,) = trigger_findings("maison", Path())
    assert "French" in finding.message


@pytest.mark.parametrize("word", ["日本", "사람", "дом"])
def test_languages_that_need_a_tokenizer_are_asked_without_one(word: str) -> None:
    found = {finding.code for finding in trigger_findings(word, Path())}
    assert {"trigger.dictionary"} <= found


def test_a_word_is_looked_up_once_and_an_odd_memory_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    found = word_languages("maison")
    assert found["fr"] > 4
    monkeypatch.setattr(trigger, "_look_up", lambda _: {})
    assert word_languages("maison") == found
    assert word_languages("maisons") == {}  # another word is asked for
    for file in (cache_dir() / "words").iterdir():
        file.write_text('["no", "table"]')
    monkeypatch.setattr(trigger, "_look_up", lambda _: found)
    assert word_languages("maisons") == found
