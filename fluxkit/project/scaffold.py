"""A new project's files. What is already there stays as it is."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.files import write_text
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import CONFIG_FILE, PROMPTS_FILE
from fluxkit.project.starters import starter_prompts
from fluxkit.project.tomltext import config_toml, prompts_toml
from fluxkit.resources import resource


@dataclass(frozen=True)
class ScaffoldReport:
    """What making a project did.

    Args:
        written: files that are new.
        kept: files that were there before, untouched.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def scaffold(root: Path, config: ProjectConfig, *, prompts: Mapping[str, str] | None = None) -> ScaffoldReport:
    """Write a project's `fluxkit.toml`, `prompts.toml`, `.gitignore` and `README.md` where they are missing.

    Args:
        root: the project's folder, made when it is missing.
        config: what the `fluxkit.toml` says; read back from the file, it is equal.
        prompts: name → text with `{trigger}`; the starter prompts by default.

    Raises:
        UserError: `root` is a file, or it can't be written.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, not a folder.", fix="Name another folder: fluxkit init FOLDER.")
    texts = _render(config, starter_prompts(config.project.subject) if prompts is None else dict(prompts))
    written, kept = [], []
    for name, text in texts.items():
        path = root / name
        if path.exists() or path.is_symlink():
            kept.append(path)
        else:
            write_text(path, text)
            written.append(path)
    return ScaffoldReport(tuple(written), tuple(kept))


def _render(config: ProjectConfig, prompts: dict[str, str]) -> dict[str, str]:
    """Every file's text, by name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = resource("templates", "scaffold")
    # No autoescape: Markdown and gitignore, no HTML.
    environment = Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    values = {"config": config, "dataset": _ignore_pattern(config.dataset.path)}
    texts = {
        CONFIG_FILE: config_toml(config),
        PROMPTS_FILE: prompts_toml(prompts),
        ".gitignore": environment.get_template("gitignore.j2").render(values),
        "README.md": environment.get_template("README.md.j2").render(values),
    }
    # A text that loses or changes a value would be our bug; it is better found here than by the user.
    if ProjectConfig.model_validate(tomllib.loads(texts[CONFIG_FILE])) != config:
        raise AssertionError("the scaffolded fluxkit.toml doesn't say what was asked for")
    if tomllib.loads(texts[PROMPTS_FILE])["prompts"] != prompts:
        raise AssertionError("the scaffolded prompts.toml doesn't say what was asked for")
    return texts


def _ignore_pattern(dataset: str) -> str | None:
    """The .gitignore line for a dataset inside the project; None for one outside, which git doesn't see."""
    path = Path(dataset)
    if path.is_absolute() or ".." in path.parts or dataset.startswith("~") or "\n" in dataset or path == Path():
        return None
    return "/" + re.sub(r"([\\*?\[\] ])", r"\\\1", path.as_posix()) + "/"
