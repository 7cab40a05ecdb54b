import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxkit.project.prompts import with_trigger


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{trigger} a man", "behitek a man"),
        ("a man", "behitek a man"),
        ("photo of behitek, smiling", "photo of behitek, smiling"),
        ("behitekian art", "behitek behitekian art"),
        ("{{trigger}}", "{behitek}"),
        ("", "behitek"),
    ],
)
def test_with_trigger(text: str, expected: str) -> None:
    assert with_trigger(text, "behitek") == expected


@given(st.text())
def test_any_text_arrives_unchanged_behind_the_trigger(text: str) -> None:
    result = with_trigger(f"{{trigger}} {text}", "behitek")
    assert result == f"behitek {text}".replace("{trigger}", "behitek")
    assert with_trigger(result, "behitek") == result
