import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkit.captioning.text import LONGEST, caption_text, with_trigger_first


@pytest.mark.parametrize(
    ("said", "caption"),
    [
        ("A man sits on a chair.", "behitek a man sits on a chair."),
        ("The image shows a man in a blue coat.", "behitek a man in a blue coat."),
        ("In this image we can see a man.\nHe is smiling.", "behitek a man. He is smiling."),
        ("In this picture there is a dog", "behitek a dog"),
        ("This is a photo of a man", "behitek this is a photo of a man"),
        ("Sure! Here is a caption:\n\n**A man** in a `red` hat", "behitek a man in a red hat"),
        ("<think>The user wants\na caption</think>\nA man.", "behitek a man."),
        ("<s>A man</s><pad><pad>", "behitek a man"),
        ("- a man\n- a chair", "behitek a man a chair"),
        ('"A man, smiling."', "behitek a man, smiling."),
        ("behitek, a man", "behitek a man"),
        ("Behitek behitek a man", "behitek a man"),
        ("Behiteks Haus", "behitek Behiteks Haus"),
        ("a\x00man\x1b[31m\u202e in\u2028 red\ufffd", "behitek a man [31m in red"),
        ("un homme à Paris 🦊", "behitek un homme à Paris 🦊"),
        ("New York at night", "behitek New York at night"),
    ],
)
def test_what_a_model_says_becomes_one_line(said: str, caption: str) -> None:
    assert caption_text(said, "behitek") == caption


@pytest.mark.parametrize(
    "said", ["", " \n\t", "\x07\x07", "...", "123", "behitek", "Behitek.", "<s></s>", "<think>and on"]
)
def test_nothing_said_is_nothing(said: str) -> None:
    assert caption_text(said, "behitek") == ""


def test_an_unfinished_sentence_is_cut_off() -> None:
    assert caption_text("A man. He wears a", "behitek", complete=False) == "behitek a man."
    assert caption_text("a man who wears a bl", "behitek", complete=False) == "behitek a man who wears a"
    assert len(caption_text("word " * 50_000, "behitek")) <= LONGEST + len("behitek ")


@given(st.text(max_size=300))
def test_any_text_gives_one_clean_line_or_nothing(said: str) -> None:
    caption = caption_text(said, "behitek")
    if not caption:
        return
    assert caption.startswith("behitek ")
    assert caption == " ".join(caption.split())
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in caption)
    caption.encode("utf-8")


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("a man", "behitek a man"),
        ("behitek a man", "behitek a man"),
        ("behitek, a man", "behitek, a man"),
        ("Behitek a man", "behitek a man"),
        ("behiteks a man", "behitek behiteks a man"),
        ("behitek", "behitek"),
    ],
)
def test_the_trigger_is_put_first_once(line: str, first: str) -> None:
    assert with_trigger_first(line, "behitek") == first
