"""Changes to `fluxkit.toml` that leave the user's comments, order and spelling as they are."""

from collections.abc import Mapping
from typing import Any

KeyPath = tuple[str, ...]


def edited(text: str, changes: Mapping[KeyPath, Any]) -> str:
    """The TOML text with some values changed.

    Args:
        text: a valid TOML document.
        changes: path → new value, e.g. `("simpletuner", "version")`; a missing table or key is added, None removes one.
    """
    import tomlkit
    from tomlkit.items import Item

    document = tomlkit.parse(text)
    for path, value in changes.items():
        table: Any = document
        for name in path[:-1]:
            if name not in table:
                table[name] = tomlkit.table()
            table = table[name]
        key = path[-1]
        if value is None:
            table.pop(key, None)
            continue
        old = table.get(key)
        new = tomlkit.item(value)
        if isinstance(old, Item) and isinstance(new, Item):
            new.trivia.comment_ws, new.trivia.comment = old.trivia.comment_ws, old.trivia.comment
        table[key] = new
    return tomlkit.dumps(document)
