"""The options that one SimpleTuner release accepts, as data, and the check of a config against them.

An option that the release doesn't know ends 1.2 with exit code 0 and 4.x after two minutes of imports
("unrecognized arguments"); here it is an error before launch that names the nearest right one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import read_json
from fluxkit.resources import resource
from fluxkit.textmatch import did_you_mean
from fluxkit.trainer.history import history

_BOOL_WORDS = ("true", "false")
_ARTICLES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}


@dataclass(frozen=True)
class Option:
    """One option of a release.

    Args:
        name: its canonical name there, without dashes in front.
        aliases: other names that its parser takes.
        type: `int`, `float`, `str`, `bool` or `json`.
        choices: the only values, or empty.
        default: the parser's default, or None.
        required: whether the parser insists on it.
    """

    name: str
    aliases: tuple[str, ...]
    type: str
    choices: tuple[Any, ...]
    default: Any
    required: bool


@dataclass(frozen=True)
class OptionProblem:
    """A setting that the release would not take."""

    name: str
    message: str


@dataclass(frozen=True)
class OptionSchema:
    """All options of a release, by canonical name."""

    release: str
    options: Mapping[str, Option]

    @cached_property
    def _by_name(self) -> dict[str, Option]:
        aliases = {alias: option for option in self.options.values() for alias in option.aliases}
        return {plain_name(name): option for name, option in {**aliases, **self.options}.items()}

    def find(self, name: str) -> Option | None:
        """The option called `name`: with or without `--`, dashes or underscores, any alias."""
        return self._by_name.get(plain_name(name))

    def names(self) -> list[str]:
        """Every name, aliases included."""
        return list(self._by_name)


def has_schema(release: str) -> bool:
    """Whether fluxkit ships the schema of a release."""
    return _shipped(release).is_file()


@cache
def load_schema(release: str) -> OptionSchema:
    """The shipped schema of a release.

    Raises:
        UserError: none is shipped.
    """
    if not has_schema(release):
        raise UserError(
            f"fluxkit ships no option schema for SimpleTuner {release}; the installed release itself is asked.",
            fix="Run `fluxkit install` first.",
        )
    return read_schema(_shipped(release))


def read_schema(path: Path) -> OptionSchema:
    """A schema from a file: a shipped one, or what an environment's health check found.

    Raises:
        UserError: it can't be read.
    """
    document = read_json(path)
    options = {
        name: Option(
            name=name,
            aliases=tuple(entry.get("aliases", ())),
            type=entry["type"],
            choices=tuple(entry.get("choices", ())),
            default=entry.get("default"),
            required=entry.get("required", False),
        )
        for name, entry in document["options"].items()
    }
    return OptionSchema(document["release"], options)


def _shipped(release: str) -> Path:
    return resource("third_party", "simpletuner", "schemas", f"{release}.json")


def canonical_name(name: str, schema: OptionSchema) -> str:
    """What the release calls the option that was ever called `name`; `name` without its dashes when nobody knows it."""
    option = schema.find(name)
    if option:
        return option.name
    plain = plain_name(name)
    row = history().rename(plain)
    for other in reversed(row.names if row else ()):
        known = schema.find(other)
        if known:
            return known.name
    return plain


def check_options(config: Mapping[str, object], schema: OptionSchema) -> list[OptionProblem]:
    """Every setting in `config` that the release would refuse or misread, in the config's order.

    Args:
        config: option → value, as in the trainer's `config.json`.
        schema: the release's options.
    """
    problems = []
    seen: dict[str, str] = {}
    for name, value in config.items():
        option = schema.find(name)
        if option is None:
            problems.append(OptionProblem(name, _unknown(name, schema)))
            continue
        if option.name in seen:
            problems.append(OptionProblem(name, f"is the same option as {seen[option.name]}; keep one of them."))
        seen[option.name] = name
        message = _value_problem(option, value)
        if message:
            problems.append(OptionProblem(name, message))
    problems += [
        OptionProblem(option.name, f"is missing; SimpleTuner {schema.release} requires it.")
        for option in schema.options.values()
        if option.required and option.name not in seen
    ]
    return problems


def _unknown(name: str, schema: OptionSchema) -> str:
    now = canonical_name(name, schema)
    if schema.find(now):
        return f"is called {now} in SimpleTuner {schema.release}."
    gone = history().removal(now)
    if gone:
        return f"is gone from SimpleTuner since {gone.since}, and nothing in {schema.release} does the same."
    return f"is no option of SimpleTuner {schema.release}.{did_you_mean(plain_name(name), schema.names())}"


def _value_problem(option: Option, value: object) -> str | None:
    if value is None:
        # null is fatal or becomes the string "None" up to 2.2.1.
        return "has no value; leave it out instead."
    if not _has_type(option, value):
        return f"must be {_ARTICLES[option.type]}, not {value!r}."
    if option.choices and not _is_choice(option, value):
        listed = ", ".join(str(choice) for choice in option.choices[:12])
        more = ", …" if len(option.choices) > 12 else ""
        hint = did_you_mean(str(value), [str(choice) for choice in option.choices])
        return f"must be one of {listed}{more}; not {value!r}.{hint}"
    if option.type == "bool" and option.default is True and str(value) == "false":
        # 3.x and 4.x drop the string and keep their default.
        return 'cannot be turned off with the text "false"; write false without quotes.'
    if option.type == "str" and str(value).lower() in _BOOL_WORDS and str(value) not in map(str, option.choices):
        # The trainer's JSON reader turns these words into a bare flag: fatal for an option that takes text.
        return f"must be {_ARTICLES[option.type]}; SimpleTuner reads {value!r} as a switch."
    return None


def _has_type(option: Option, value: object) -> bool:
    kind = option.type
    if kind == "json":
        return True
    if kind == "bool":
        return isinstance(value, bool) or (isinstance(value, str) and value in _BOOL_WORDS)
    if isinstance(value, bool):
        return False
    if kind == "str":
        return isinstance(value, (str, int, float)) or (isinstance(value, (dict, list)) and not option.choices)
    return isinstance(value, (int, float, str)) and _is_number(str(value), whole=kind == "int")


def _is_number(text: str, *, whole: bool) -> bool:
    # Numbers in quotes are fine: they travel to the parser as text.
    try:
        int(text) if whole else float(text)
    except ValueError:
        return False
    return True


def _is_choice(option: Option, value: object) -> bool:
    return value in option.choices or str(value) in map(str, option.choices)


def plain_name(name: str) -> str:
    """An option's name without dashes in front, with underscores."""
    return name.strip().lstrip("-").replace("-", "_")
