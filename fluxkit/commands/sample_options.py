"""What the options of `fluxkit sample` mean: prompts, seeds, lists of numbers, sizes."""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fluxkit.errors import UserError
from fluxkit.project.load import Project
from fluxkit.project.prompts import with_trigger


def chosen_prompts(project: Project, texts: Sequence[str], file: Path | None) -> dict[str, str]:
    """The prompts by name, the trigger in each: from `--prompt`, `--prompts FILE`, or else `prompts.toml`.

    Raises:
        UserError: there are none, or the file can't be read.
    """
    found = list(texts) + (read_prompts(file) if file else [])
    if found:
        trigger = project.config.project.trigger
        return {f"prompt-{i}": with_trigger(text, trigger) for i, text in enumerate(dict.fromkeys(found), start=1)}
    if file:
        raise UserError(f"{file} holds no prompt.", fix="Write one a line; lines that begin with # are left out.")
    if not project.prompts:
        raise UserError("There are no prompts.", fix="Write some into prompts.toml, or give one with --prompt.")
    return dict(project.prompts)


def read_prompts(file: Path) -> list[str]:
    """A text file's prompts, one a line; empty lines and lines that begin with `#` are left out."""
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read: {error}", fix="Give --prompts a text file in UTF-8.") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def chosen_seeds(text: str | None, base_seed: int, count: int) -> tuple[int, ...]:
    """`N` is how many from the base seed on, `a,b,c` is which (`a,` for one), `random:N` draws N."""
    if text is None:
        return tuple(base_seed + i for i in range(count))
    drawn = re.fullmatch(r"random(?::(\d+))?", text.strip())
    if drawn:
        # 32 bits: what other programs take as a seed too.
        return tuple(secrets.randbelow(2**32) for _ in range(int(drawn[1] or 1)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(
            f"--seeds {text!r} is neither a number nor a list.",
            fix="For example: --seeds 4, --seeds 7,11 or --seeds random:4",
        )
    if "," in text:
        return tuple(dict.fromkeys(int(part) for part in parts))
    return tuple(base_seed + i for i in range(int(parts[0])))


def floats(text: str, name: str) -> tuple[float, ...]:
    """A comma list of numbers."""
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise UserError(f"{name} {text!r} is no list of numbers.", fix=f"For example: {name} 0.8,1.0") from error


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """A comma list of numbers from 1 on."""
    parts = [part.strip() for part in str(text).split(",")]
    if not all(part.isdigit() and int(part) for part in parts):
        raise UserError(f"{name} {text!r} is no list of whole numbers.", fix=f"For example: {name} 10,20")
    return tuple(dict.fromkeys(int(part) for part in parts))


def image_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` in pixels."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"--size {text!r} is not WIDTHxHEIGHT.", fix="For example: --size 832x1216")
    return int(parts[0]), int(parts[1])


def images_at_once(text: str) -> int | Literal["auto"]:
    """`auto` or a number."""
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--batch-size {text!r} is neither auto nor a number.", fix="For example: --batch-size 2")
    return int(text)
