"""A report to send: what helps to find a fault, in one archive, without what is nobody's business.

Photos, captions and weights are never in it; see `redact.py` for what is taken out of the rest.
"""

import json
import platform
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from fluxkit import __version__
from fluxkit.doctor.redact import Private, Redactor, environment
from fluxkit.errors import UserError
from fluxkit.files import atomic_path
from fluxkit.project.load import CONFIG_FILE, Project
from fluxkit.trainer.progress import parse_step, strip_ansi
from fluxkit.trainer.runs import Run

LOG_LINES = 500
_LOG_BYTES = 4 * 2**20
_CAPTIONS = ("*.txt", "*.caption")
_QUOTED = re.compile(r"""^\s*["']?([\w-]+)["']?\s*=\s*(["'])(.*?)\2\s*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A file of the archive.

    Args:
        name: its path there.
        what: what it is, for people.
        text: its contents.
    """

    name: str
    what: str
    text: str


def private_parts(root: Path | None) -> Private:
    """What is private in a project's folder, whether its settings can be understood or not.

    The photos' folder may be large: only names and captions are read.
    """
    if root is None:
        return Private()
    settings, prompts = _strings(root / CONFIG_FILE), _strings(root / "prompts.toml")
    dataset = root / Path(settings.get("path", "dataset")).expanduser()
    folders = {"project": root, "photos": dataset, "photos prepared": root / "prepared" / "photos"}
    photos, captions = [], []
    for folder in (folders["photos"], folders["photos prepared"]):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and not path.name.startswith("aspect_ratio_bucket_"):
                photos.append(path.relative_to(folder).as_posix())
                if any(path.match(pattern) for pattern in _CAPTIONS):
                    captions.append(path.read_text(encoding="utf-8", errors="replace"))
    trigger = settings.get("trigger", "")
    texts = [*captions, *prompts.values(), settings.get("validation_prompt", "")]
    texts += [text.replace("{trigger}", trigger) for text in texts]
    words = [trigger, settings.get("name", ""), *prompts]
    resolved = {f"{name} there": folder.resolve() for name, folder in folders.items()}
    return Private(tuple(texts), tuple(photos), tuple(words), {**folders, **resolved})


def _strings(path: Path) -> dict[str, str]:
    """The strings of a TOML file by their keys, whatever table they are in; of a broken one as far as it goes."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    try:
        return dict(_leaves(tomlkit.parse(text).unwrap()))
    except (ValueError, TypeError):
        return {key: value for key, _, value in _QUOTED.findall(text)}


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, str):
            yield key, value


def entries(root: Path | None, project: Project | None, doctor: Mapping[str, Any], run: Run | None) -> list[Entry]:
    """Everything that goes into the archive, redacted.

    Args:
        root: the project's folder; None outside of one.
        project: the project; None where its settings can't be understood.
        doctor: the doctor's report, as `--json` prints it.
        run: the newest run, if there is one.
    """
    redactor = Redactor(private_parts(root))
    about = {"fluxkit": __version__, "python": platform.python_version(), "system": platform.platform()}
    found = [
        Entry("about.json", "versions of fluxkit, Python and the system", _json(redactor.data(about))),
        Entry("doctor.json", "what `fluxkit doctor` says", _json(redactor.data(doctor))),
    ]
    if project:
        found += _project_entries(project, redactor)
    if run:
        found += _run_entries(run, redactor)
    return found


def write_bundle(path: Path, found: list[Entry]) -> None:
    """Write the archive, a ZIP file.

    Raises:
        UserError: it can't be written.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in found:
            archive.writestr(entry.name, entry.text)


def _project_entries(project: Project, redactor: Redactor) -> Iterator[Entry]:
    try:
        config: dict[str, Any] = tomlkit.parse((project.root / CONFIG_FILE).read_text(encoding="utf-8")).unwrap()
    except (OSError, ValueError):
        config = {}
    if isinstance(config.get("env"), dict):
        config["env"] = environment(config["env"])
    yield Entry("fluxkit.toml", "your settings", tomlkit.dumps(redactor.data(config)))
    lengths = {f"prompt-{i}": len(text.split()) for i, text in enumerate(project.prompts.values(), start=1)}
    yield Entry("prompts.json", "how many words each prompt has, not the prompts", _json(lengths))
    if project.lock_file.is_file():
        lock = project.lock_file.read_text(encoding="utf-8", errors="replace")
        yield Entry("fluxkit.lock", "versions of the trainer's libraries", redactor.text(lock))


def _run_entries(run: Run, redactor: Redactor) -> Iterator[Entry]:
    folder = f"run-{run.record.id}"
    for path in sorted([run.folder / "run.json", *run.config_dir.glob("*.json")]):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if path.name == "user_prompt_library.json":
            continue  # prompts, all of it
        what = "the run's record" if path.name == "run.json" else "what SimpleTuner was given"
        yield Entry(f"{folder}/{path.name}", what, _json(redactor.data(document)))
    log = tail(run.log_file)
    if log:
        yield Entry(f"{folder}/log.txt", f"the last {len(log.splitlines())} lines of the log", redactor.text(log))


def tail(log: Path) -> str:
    """The end of a log as plain lines, of each run of progress bars the last; empty where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG_BYTES))
            text = strip_ansi(file.read().decode("utf-8", "replace"))
    except OSError:
        return ""
    lines: list[str] = []
    for line in re.split(r"[\r\n]+", text):
        if lines and _is_bar(line) and _is_bar(lines[-1]):
            lines[-1] = line
        else:
            lines.append(line)
    return "\n".join(lines[-LOG_LINES:])


def _is_bar(line: str) -> bool:
    return parse_step(line) is not None or re.search(r"\d+%\|", line) is not None


def _json(document: object) -> str:
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"The report can't be written: {error}.") from error
