"""From a folder to a `Project`, or one message that lists everything wrong with its files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.journal import recover
from fluxkit.project.prompts import NAME_PATTERN, with_trigger
from fluxkit.project.tomlfile import KeyPath, TomlFile, read_toml
from fluxkit.textmatch import did_you_mean

CONFIG_FILE = "fluxkit.toml"
PROMPTS_FILE = "prompts.toml"
LOCK_FILE = "fluxkit.lock"
_INIT_FIX = "Run `fluxkit init` to make a project here, or name its folder with -C."


@dataclass(frozen=True)
class Project:
    """A user's folder.

    Args:
        root: absolute path of the folder that holds `fluxkit.toml`.
        config: what `fluxkit.toml` says.
        prompts: name → text, in the file's order, each already holding the trigger.
        lock_path: where its lock lies, if not in its usual place: for a look at what an upgrade would give.
        recovered: whether a switch that was cut short was finished while it was loaded.
    """

    root: Path
    config: ProjectConfig
    prompts: Mapping[str, str]
    lock_path: Path | None = None
    recovered: bool = False

    @property
    def dataset_dir(self) -> Path:
        """The folder of photos."""
        return self.root / Path(self.config.dataset.path).expanduser()

    @property
    def cache_dir(self) -> Path:
        """The trainer's VAE and text caches."""
        return self.root / "cache"

    @property
    def runs_dir(self) -> Path:
        """One folder for each training run."""
        return self.root / "runs"

    @property
    def samples_dir(self) -> Path:
        """One folder for each batch of images."""
        return self.root / "samples"

    @property
    def lock_file(self) -> Path:
        """What the pinned SimpleTuner resolved to."""
        return self.lock_path or self.root / LOCK_FILE


def find_project(start: Path | None = None) -> Path:
    """The project around `start` (the current folder): the nearest one upwards with a `fluxkit.toml`.

    Raises:
        UserError: there is none.
    """
    folder = (start or Path.cwd()).expanduser().resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    raise UserError(f"There is no {CONFIG_FILE} in {folder} or above it.", fix=_INIT_FIX)


def load_project(root: Path) -> Project:
    """Read the project in `root`, after finishing an upgrade that was cut short in the middle of its switch.

    Raises:
        UserError: a file is missing or malformed; one message holds all problems, each with its line.
    """
    root = root.expanduser().resolve()
    recovered = recover(root)
    config_file = read_toml(root / CONFIG_FILE, missing_fix=_INIT_FIX)
    config, problems = parse_config(config_file)
    prompts: dict[str, str] = {}
    if (root / PROMPTS_FILE).exists():
        prompts, prompt_problems = _parse_prompts(read_toml(root / PROMPTS_FILE))
        problems += prompt_problems
    if config is None or problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UserError(
            f"{count} in the project's settings:\n" + "\n".join(f"  {problem}" for problem in problems),
            fix="Correct the lines named, then run the same command again.",
        )
    trigger = config.project.trigger
    texts = {name: with_trigger(text, trigger) for name, text in prompts.items()}
    return Project(root, config, MappingProxyType(texts), recovered=recovered)


def parse_config(file: TomlFile) -> tuple[ProjectConfig | None, list[str]]:
    """The settings in a `fluxkit.toml`, or None and a line for each problem."""
    try:
        return ProjectConfig.model_validate(file.data), []
    except ValidationError as error:
        problems = [_problem(file, problem) for problem in error.errors(include_url=False)]
        return None, list(dict.fromkeys(problems))


def _problem(file: TomlFile, error: Any) -> str:
    # pydantic puts an index or a union's member behind the key; the file's line is the key's.
    key = tuple(str(part) for part in error["loc"])
    owner, names = _fields_around(key)
    key = key[: len(owner) + 1] if owner else key
    if error["type"] == "extra_forbidden":
        return f"{_where(file, key)}: unknown key `{'.'.join(key)}`.{did_you_mean(key[-1], names)}"
    if error["type"] == "missing":
        return f"{_where(file, key)}: `{'.'.join(key)}` is missing."
    message = error["msg"].removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict) else f", not {error['input']!r}"
    return f"{_where(file, key)}: `{'.'.join(key)}`: {message[:1].lower()}{message[1:]}{given}."


def _fields_around(key: KeyPath) -> tuple[KeyPath, list[str]]:
    """The innermost section that holds `key`, and the names known in it."""
    model: type[BaseModel] = ProjectConfig
    owner: KeyPath = ()
    for part in key[:-1]:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model, owner = inner, (*owner, part)
    return owner, list(model.model_fields)


def _where(file: TomlFile, key: KeyPath) -> str:
    line = file.line_of(key)
    return f"{file.path.name}, line {line}" if line else file.path.name


def _parse_prompts(file: TomlFile) -> tuple[dict[str, str], list[str]]:
    """The `[prompts]` of a prompts.toml, and a line for each problem."""
    problems = [
        f"{_where(file, (key,))}: unknown key `{key}`.{did_you_mean(key, ['prompts'])}"
        for key in file.data
        if key != "prompts"
    ]
    table = file.data.get("prompts", {})
    if not isinstance(table, dict):
        return {}, [*problems, f"{_where(file, ('prompts',))}: `prompts` is a table: write [prompts] on a line."]
    problems += _prompt_problems(file, table)
    return {name: text for name, text in table.items() if isinstance(text, str)}, problems


def _prompt_problems(file: TomlFile, table: dict[str, Any]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name, text in table.items():
        where = _where(file, ("prompts", name))
        if not NAME_PATTERN.fullmatch(name):
            yield f"{where}: the name `{name}` becomes a file name: up to 64 of A-Z, a-z, 0-9, _ and -."
        if not isinstance(text, str) or not text.strip():
            yield f"{where}: `prompts.{name}` must be a text in quotes, and not empty."
        other = seen.setdefault(name.lower(), name)
        if other != name:
            yield f"{where}: `{name}` and `{other}` would be the same file on some disks."
