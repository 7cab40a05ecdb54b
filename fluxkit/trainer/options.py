"""A user's SimpleTuner options under the pinned release's names and values, and what an upgrade would change.

Options may be written by any name SimpleTuner ever gave them; the user's spelling stays in `fluxkit.toml`, and is
translated each time. The one exception is a value whose name means something else in the other release: `migrate` is
for the moment when a project moves between two releases.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.version import Version

from fluxkit.errors import UserError
from fluxkit.trainer.history import history
from fluxkit.trainer.schema import Option, OptionSchema, canonical_name, plain_name


@dataclass(frozen=True)
class Translated:
    """A user's options as one release takes them.

    Args:
        options: by the release's names, in the user's order.
        written: the release's name → the user's.
        notes: what was left out because it asked for nothing.
    """

    options: Mapping[str, Any]
    written: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Vanished:
    """An option, or its value, that a release has no successor for.

    Args:
        name: as the user wrote it.
        value: the user's.
        reason: a sentence for the user.
    """

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Change:
    """A difference between two releases.

    Args:
        kind: `added`, `removed`, `renamed`, `retyped`, `choices` (some were lost) or `default`.
        name: the option, as the old release calls it; as the new one does for `added` and `default`.
        old: the old name, type, choices lost or default; None for `added`.
        new: the new one; None for `removed` and `choices`.
        used: whether the project sets it.
    """

    kind: Literal["added", "removed", "renamed", "retyped", "choices", "default"]
    name: str
    old: Any
    new: Any
    used: bool


def translate(options: Mapping[str, Any], schema: OptionSchema) -> Translated:
    """The options under the names and values of the schema's release.

    A name that nobody knows stays as it is, for `check_options` to name.

    Raises:
        UserError: the same option twice, by two names.
    """
    translated: dict[str, Any] = {}
    written: dict[str, str] = {}
    notes = []
    for name, value in options.items():
        now = canonical_name(name, schema)
        option = schema.find(now)
        gone = history().removal(now)
        if option is None and gone is not None and _same(value, gone.neutral):
            notes.append(
                f"{name} is gone from SimpleTuner {schema.release}; {value!r} asked for nothing, it is left out."
            )
            continue
        if now in translated:
            raise UserError(f"{written[now]} and {name} are the same option.", fix="Keep one of them.")
        translated[now] = _value(name, now, value, option)
        written[now] = name
    return Translated(translated, written, tuple(notes))


def migrate(options: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    """The options, by the user's names, with the values that keep their meaning from release `old` to release `new`.

    Pure and idempotent: a second call with the result changes nothing. Empty differences are the common case.
    """
    migrated = dict(options)
    for row in history().revalued:
        before, after = Version(old) < Version(row.since), Version(new) < Version(row.since)
        if before == after:
            continue
        source, target = (row.old, row.new) if before else (row.new, row.old)
        for name, value in options.items():
            if plain_name(name) in row.options and value == source:
                migrated[name] = target
    return migrated


def vanished_options(options: Mapping[str, Any], old_schema: OptionSchema, new_schema: OptionSchema) -> list[Vanished]:
    """The options in use that mean something to the old release and have no successor in the new one.

    Args:
        options: the user's, by any name.
        old_schema: of the release the project is pinned to.
        new_schema: of the release it would be pinned to.
    """
    kept = migrate(options, old_schema.release, new_schema.release)
    now = translate(kept, new_schema)
    back = {written: name for name, written in now.written.items()}
    gone = []
    for name, value in options.items():
        before = translate({name: value}, old_schema)
        known_before = [old_schema.find(option) for option in before.options]
        if not any(known_before) or name not in back:
            continue
        option = new_schema.find(back[name])
        other_meaning = _lost_meaning(name, value, old_schema.release, new_schema.release)
        if other_meaning:
            gone.append(Vanished(name, value, other_meaning))
        elif option is None:
            gone.append(Vanished(name, value, _missing(name, new_schema)))
        elif option.choices and not _is_choice(option, now.options[back[name]]):
            gone.append(Vanished(name, value, f"SimpleTuner {new_schema.release} has no {value!r} for {name}."))
    return gone


def schema_diff(old: OptionSchema, new: OptionSchema, used: Mapping[str, Any]) -> list[Change]:
    """What differs between two releases, as far as it can matter to a project.

    For options that the project uses: removed, renamed, retyped, choices lost, defaults changed. For options that it
    leaves out: defaults that changed and could change the result. Plus what was added, and what was removed unused.

    Args:
        old: the release it is pinned to.
        new: the release it would be pinned to.
        used: the rendered options of the old release, with or without `--`.
    """
    in_use = {option.name for name in used if (option := old.find(name))}
    changes = []
    successors = set()
    for name, option in old.options.items():
        after = new.find(canonical_name(name, new))
        if after is None:
            changes.append(Change("removed", name, name, None, name in in_use))
            continue
        successors.add(after.name)
        changes += _changes(option, after, used=name in in_use)
    changes += [Change("added", name, None, name, used=False) for name in new.options if name not in successors]
    return changes


def _changes(before: Option, after: Option, *, used: bool) -> list[Change]:
    changes = []
    if before.name != after.name:
        changes.append(Change("renamed", before.name, before.name, after.name, used))
    if before.type != after.type and used:
        changes.append(Change("retyped", before.name, before.type, after.type, used))
    lost = tuple(choice for choice in before.choices if not _is_choice(after, choice)) if after.choices else ()
    if lost and used:
        changes.append(Change("choices", before.name, lost, None, used))
    row = history().rename(before.name)
    flipped = row is not None and row.flips(before.name, after.name)
    # Under the later name, whose sense it may be the opposite of.
    default = _flip(before.default) if flipped else before.default
    if not _same(default, after.default) and (used or before.name not in history().harmless_defaults):
        changes.append(Change("default", after.name, default, after.default, used))
    return changes


def _value(name: str, now: str, value: Any, option: Option | None) -> Any:
    row = history().rename(plain_name(name))
    if row is not None and row.flips(plain_name(name), now):
        value = _flip(value)
    if option is None:
        return value
    if option.choices and not _is_choice(option, value):
        for revalued in history().revalued:
            other = (
                {revalued.old: revalued.new, revalued.new: revalued.old}.get(value) if isinstance(value, str) else None
            )
            if now in revalued.options and other is not None and _is_choice(option, other):
                return other
    # Some options that take numbers became whole ones at 3.0.0: 5.0 is fine, as 5.
    if option.type == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _flip(value: Any) -> Any:
    flipped = {"true": "false", "false": "true"}
    return not value if isinstance(value, bool) else flipped.get(value, value) if isinstance(value, str) else value


def _missing(name: str, schema: OptionSchema) -> str:
    removal = history().removal(plain_name(name))
    since = f"since {removal.since}" if removal else f"in {schema.release}"
    return f"SimpleTuner has no option {plain_name(name)} any more ({since}), and none that does the same."


def _lost_meaning(name: str, value: Any, old: str, new: str) -> str:
    """Why the value can't go back: its name is there, and means something else."""
    for row in history().revalued:
        back = Version(new) < Version(row.since) <= Version(old)
        if back and plain_name(name) in row.options and value == row.old:
            return f"SimpleTuner {new} has no {value!r} in that sense: {row.reason}"
    return ""


def _is_choice(option: Option, value: Any) -> bool:
    return value in option.choices or str(value) in map(str, option.choices)


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same to the parser: 3 and 3.0, true and "true"; None is no value."""
    if one is None or other is None:
        return one is other
    return one == other or str(one).lower() == str(other).lower()
