import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from fluxkit.dataset.preparing.names import output_stems, shown

NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80).filter(
        lambda name: name not in ".."
    ),
    max_size=20,
    unique=True,
)


@given(NAMES)
def test_any_names_become_distinct_safe_stems(names: list[str]) -> None:
    stems = output_stems([shown(f"{name}.jpg") for name in names])
    folded = [unicodedata.normalize("NFC", stem.casefold()) for stem in stems.values()]
    assert len(set(folded)) == len(folded)
    for stem in stems.values():
        assert stem
        assert not stem.startswith((".", "/"))
        assert len(stem.encode()) < 200
        assert stem.isprintable() or not any(unicodedata.category(char) == "Cc" for char in stem)


def test_plain_names_stay_and_folders_too() -> None:
    assert output_stems(["a.jpg", "trip/IMG 1.png"]) == {"a.jpg": "a", "trip/IMG 1.png": "trip/IMG 1"}


def test_one_stem_is_used_once_whatever_the_case_or_normal_form() -> None:
    stems = output_stems(["A.jpg", "a.jpg", "a.png", "e\u0301.jpg", "\u00e9.jpg"])
    assert stems == {"A.jpg": "A", "a.jpg": "a-jpg", "a.png": "a-png", "e\u0301.jpg": "é", "\u00e9.jpg": "é-jpg"}


def test_line_ends_direction_marks_and_broken_bytes() -> None:
    assert output_stems(["a\nb\u202e.jpg"]) == {"a\nb\u202e.jpg": "a_b_"}
    assert shown("caf\udce9.jpg") == r"caf\xe9.jpg"
