"""Changing single settings in a `fluxkit.toml` that belongs to its user: comments, order and spelling stay."""

from collections.abc import Mapping
from pathlib import Path

from fluxkit.files import write_text


def edited(text: str, section: str, values: Mapping[str, str | None]) -> str:
    """The TOML text with some settings of a section changed; None takes a setting out."""
    import tomlkit

    document = tomlkit.parse(text)
    if section not in document:
        document[section] = tomlkit.table()
    table = document[section]
    for name, value in values.items():
        if value is None:
            table.pop(name, None)
        elif table.get(name) != value:
            table[name] = value
    return tomlkit.dumps(document)


def edit_file(path: Path, section: str, values: Mapping[str, str | None]) -> bool:
    """Change settings in a file, atomically; whether anything changed."""
    before = path.read_bytes().decode("utf-8-sig")
    after = edited(before, section, values)
    if after == before:
        return False
    write_text(path, after)
    return True
