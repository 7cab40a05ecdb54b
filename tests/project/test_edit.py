import tomllib

from fluxkit.project.edit import edited

TEXT = """\
# mine
[simpletuner]    # the trainer
version = "4.8.0"    # which
[train.options]
optimizer = "adamw_bf16"    # fast
"""


def test_a_changed_value_leaves_comments_order_and_the_rest_alone() -> None:
    text = edited(TEXT, {("simpletuner", "version"): "4.10.1"})
    assert tomllib.loads(text)["simpletuner"]["version"] == "4.10.1"
    assert [line.split("#")[-1].strip() for line in text.splitlines() if "#" in line] == [
        line.split("#")[-1].strip() for line in TEXT.splitlines() if "#" in line
    ]
    assert text.splitlines()[3:] == TEXT.splitlines()[3:]


def test_a_missing_table_is_added_and_none_removes_a_key() -> None:
    text = edited(TEXT, {("model", "base"): "/a b", ("train", "options", "optimizer"): None})
    assert tomllib.loads(text) == {
        "simpletuner": {"version": "4.8.0"},
        "train": {"options": {}},
        "model": {"base": "/a b"},
    }


def test_the_same_change_twice_is_the_same_text() -> None:
    change = {("simpletuner", "version"): "4.10.1"}
    assert edited(edited(TEXT, change), change) == edited(TEXT, change)
