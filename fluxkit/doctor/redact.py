"""What must not leave the machine in a report, and its removal: tokens, names, captions, prompts, photos' names.

Two nets: what is known of this project and this computer is replaced wherever it stands, also as JSON, URLs and Python
write it; what only looks like a secret is replaced by its shape. Rather too much is taken out than too little.
"""

import getpass
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

SECRET_NAME = re.compile(r"token|secret|passw|api[_-]?key|access[_-]?key|credential|auth|\bkey\b|_key$", re.IGNORECASE)
_TEXT_NAME = re.compile(r"prompt|caption", re.IGNORECASE)
# Names that mean words, not texts: strategies, counts and files of SimpleTuner's options.
_NO_TEXT = re.compile(r"strategy|dropout|probability|library|steps|seconds|prepend|disable|captions$", re.IGNORECASE)
_SHAPES = (
    (re.compile(r"\b(hf_|sk-|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abp]-|AKIA|r8_)[A-Za-z0-9_-]{8,}"), "<token>"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(\.[\w-]*)?"), "<token>"),
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 <token>"),
    (re.compile(r"(\w+://)[^\s/@\"']+@"), r"\1<login>@"),
    (
        re.compile(
            r"""(?P<name>[\w-]*(?:TOKEN|SECRET|PASSW(?:OR)?D|API[_-]?KEY|ACCESS[_-]?KEY|CREDENTIALS?)[\w-]*)"""
            r"""(?P<between>["']?\s*[=:]\s*["']?)(?P<value>[^\s"',;&]{3,})""",
            re.IGNORECASE,
        ),
        r"\g<name>\g<between><token>",
    ),
    (re.compile(r"([?&](?:sig|signature|x-amz-[\w-]+|key)=)[^&\s\"']+", re.IGNORECASE), r"\1<token>"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w"), "<e-mail>"),
)
_WORD = re.compile(r"[^\W_]+")
_RUN_OF_WORDS = 4
_COMMON_NAMES = frozenset({"root", "user", "admin", "ubuntu", "localhost", "home"})


@dataclass(frozen=True)
class Private:
    """What is private in a project.

    Args:
        texts: captions and prompts.
        photos: file names of photos, with their folders inside the dataset.
        words: the trigger and the project's name.
        folders: what stands for a folder → the folder: the project's, the photos'.
    """

    texts: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    folders: Mapping[str, Path] | None = None


class Redactor:
    """Takes what is private out of texts and of data.

    Args:
        private: what is known of the project.
    """

    def __init__(self, private: Private) -> None:
        known = dict(_known(private))
        longest = sorted(known, key=len, reverse=True)
        self._known = {key.casefold(): known[key] for key in longest}
        self._pattern = re.compile("|".join(map(_bounded, longest)), re.IGNORECASE) if longest else None
        self._below = [
            re.compile(rf"{re.escape(str(folder))}/[^\"'\n\r]*?(?=[\"'\n\r,\]]|:\s|\s-|$)")
            for folder in _photo_folders(private)
        ]
        self._runs = {run for text in private.texts for run in _runs(text)}

    def text(self, text: str) -> str:
        """`text` without what is private."""
        for pattern in self._below:
            text = pattern.sub("<photo>", text)
        if self._pattern:
            text = self._pattern.sub(lambda found: self._known[found[0].casefold()], text)
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return "\n".join(self._line(line) for line in text.split("\n"))

    def data(self, value: Any, name: str = "") -> Any:
        """A JSON value without what is private; texts and secrets are known by their keys' names too."""
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.data(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(each, name) for each in value]
        if not isinstance(value, str) or not value:
            return value
        if SECRET_NAME.search(name):
            return "<token>"
        if _TEXT_NAME.search(name) and not _NO_TEXT.search(name):
            return _words(value)
        return self.text(value)

    def _line(self, line: str) -> str:
        """A line of a log that holds four words in a row of a caption is let go as a whole."""
        return (
            "<a line with a caption or prompt>"
            if self._runs and any(run in self._runs for run in _runs(line))
            else line
        )


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """`[env]`: names, and the values that are no secret by what they set."""
    open_names = ("PYTORCH_", "CUDA_", "OMP_", "TORCH", "NCCL_", "SIMPLETUNER_")
    return {
        name: value if name.startswith(open_names) and not SECRET_NAME.search(name) else "<value>"
        for name, value in values.items()
    }


def _words(text: str) -> str:
    count = len(text.split())
    return f"<{count} {'word' if count == 1 else 'words'}>"


def _known(private: Private) -> Iterator[tuple[str, str]]:
    for text in private.texts:
        for line in {text.strip(), *(part.strip() for part in text.splitlines())}:
            if len(line) >= 4:
                yield from _written(line, _words(line))
    for photo in private.photos:
        path = Path(photo)
        for name in {photo, path.name, *(part for part in path.parts[:-1] if len(part) >= 4)}:
            yield from _written(name, "<photo>")
        if len(path.stem) >= 4 and not path.stem.isdigit():
            yield from _written(path.stem, "<photo>")
    for word in private.words:
        if len(word) >= 3:
            yield from _written(word, "<name>")
    for stands, folder in (private.folders or {}).items():
        yield from _written(str(folder), f"<{stands}>")
    home = str(Path.home())
    if len(home) > 1:
        yield from _written(home, "~")
    for name, stands in ((_user(), "<user>"), (Path.home().name, "<user>"), (platform.node(), "<computer>")):
        if len(name) >= 3 and name.casefold() not in _COMMON_NAMES:
            yield from _written(name, stands)


def _written(text: str, stands: str) -> Iterator[tuple[str, str]]:
    """A text as it is, as JSON with and without its own letters, as Python's repr, and in a URL."""
    forms = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], quote(text))
    yield from ((form, stands) for form in forms)


def _bounded(text: str) -> str:
    """Where a name begins or ends in a letter it must not be a part of a longer word; `_` and `-` do end one."""
    start = r"(?<![^\W_])" if text[0].isalnum() else ""
    end = r"(?![^\W_])" if text[-1].isalnum() else ""
    return f"{start}{re.escape(text)}{end}"


def _photo_folders(private: Private) -> Iterable[Path]:
    return [folder for name, folder in (private.folders or {}).items() if name.startswith("photos")]


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    return (tuple(words[i : i + _RUN_OF_WORDS]) for i in range(len(words) - _RUN_OF_WORDS + 1))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
