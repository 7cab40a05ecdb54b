"""What a release's own parser accepts, asked inside the trainer's environment.

This file is run by the trainer's interpreter, as a script: it imports nothing of fluxkit and nothing but the standard
library at its top. Importing SimpleTuner takes about 40 s on two cores. Only names, types, choices and defaults come
out, no help text (it is AGPL).
"""

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Iterable
from typing import Any

MARK = "fluxkit-probe:"  # libraries print what they like before it
LONGEST_DEFAULT = 120
PARSERS = ("simpletuner.helpers.configuration.cmd_args", "helpers.configuration.cmd_args")


def describe(parser: argparse.ArgumentParser) -> dict[str, dict[str, Any]]:
    """Canonical option name → what the parser says about it, without empty keys."""
    options = {}
    for action in parser._actions:
        names = [name[2:] for name in action.option_strings if name.startswith("--")]
        if not names or names == ["help"]:
            continue
        described = {
            "aliases": names[1:],
            "type": _type(action),
            "choices": _plain(action.choices),
            "default": _default(action.default),
            "required": action.required,
        }
        options[names[0]] = {key: value for key, value in described.items() if value not in (None, [], False)}
        if described["default"] is False:
            options[names[0]]["default"] = False
    return dict(sorted(options.items()))


def _type(action: argparse.Action) -> str:
    if action.nargs == 0 and isinstance(action.const, bool):
        return "bool"
    name = getattr(action.type, "__name__", "str")
    if name in ("int", "float", "str"):
        return name
    if name == "_parse_bool_flag":
        return "bool"
    return "json" if action.type else "str"


def _plain(choices: Iterable[Any] | None) -> list[Any]:
    return [choice for choice in choices or () if isinstance(choice, (str, int, float))]


def _default(value: Any) -> Any:
    if not isinstance(value, (str, int, float, bool, list)) or value == argparse.SUPPRESS:
        return None
    # A default of several sentences is upstream's text, not a fact.
    return value if len(str(value)) <= LONGEST_DEFAULT else None


def find_parser() -> argparse.ArgumentParser:
    """The parser of the release that can be imported here."""
    for module in PARSERS[:-1]:
        with contextlib.suppress(ModuleNotFoundError):
            return _parser(module)
    return _parser(PARSERS[-1])


def _parser(module: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = importlib.import_module(module).get_argument_parser()
    return parser


if __name__ == "__main__":
    sys.stdout.write(MARK + json.dumps(describe(find_parser())) + "\n")
