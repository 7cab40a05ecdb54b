"""Damaged and hostile files: validate ends, reports each, crashes on none, and stays small."""

import errno
import json
import os
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxkit.dataset.captions import caption_findings
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.model import DatasetRules
from fluxkit.dataset.report import report_text
from tests.dataset.hostile import NOT_UTF8, ODD_NAMES, PLAIN_NAMES, make_corpus, photo

RULES = DatasetRules(trigger="behitek", resolutions=(64,))
CONFIG = '[project]\nname = "p"\ntrigger = "behitek"\n[dataset]\nresolutions = [64]\n'
# Runs the installed command and appends what it took: exit code and peak memory in KB.
MEASURED = """
import resource, sys
from fluxkit.cli import main
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    main()
except SystemExit as leave:
    # Not ru_maxrss: that of the process which started this one counts in it.
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(leave.code, peak, file=sys.stderr)
"""


@dataclass(frozen=True)
class Outcome:
    folder: Path
    bad: set[str]
    document: dict[str, Any]
    raw: str
    text: str
    exit_code: int
    peak_mb: float

    def about(self, name: str) -> set[str]:
        found = self.document["findings"]
        return {finding["code"] for finding in found if name in (finding["path"], *finding["related"])}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    root = tmp_path_factory.mktemp("hostile")
    (root / "fluxkit.toml").write_text(CONFIG)
    bad = make_corpus(root / "dataset")
    command = [sys.executable, "-c", MEASURED, "validate", "-C", str(root)]
    environment = os.environ | {"FLUXKIT_CACHE": str(root / "user-cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    # Opening a pipe for reading would wait for ever; the time limit is what would fail then.
    first = subprocess.run([*command, "--json"], capture_output=True, timeout=300, env=environment, check=False)
    second = subprocess.run(command, capture_output=True, timeout=300, env=environment, check=False)
    code, peak = first.stderr.decode().splitlines()[-1].split()
    raw = first.stdout.decode("utf-8")
    return Outcome(
        root / "dataset", bad, json.loads(raw), raw, second.stdout.decode("utf-8"), int(code), int(peak) / 1024
    )


def _obeyed(text: str) -> set[str]:
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


def test_two_hundred_files_and_more(outcome: Outcome) -> None:
    assert len(list(outcome.folder.iterdir())) > 240


def test_it_ends_with_a_report_and_no_crash(outcome: Outcome) -> None:
    assert outcome.exit_code == 1, "errors in the dataset, not a bug (70)"
    assert not list(outcome.folder.parent.glob("user-cache/bugs/*"))


def test_every_bad_file_is_an_error(outcome: Outcome) -> None:
    errors = {
        f["path"] for f in outcome.document["findings"] if f["severity"] == "error" and f["code"].startswith("image")
    }
    assert outcome.bad - errors == set()


def test_no_truncated_file_counts_as_a_picture(outcome: Outcome) -> None:
    used = {image["path"] for image in outcome.document["images"]}
    cut = {
        name
        for name in outcome.bad
        if name.rsplit(".", 1)[0].rsplit("-", 1)[-1] in {*(f"{n:02d}" for n in range(16)), "last", "zeros"}
    }
    assert len(cut) == 170
    assert cut & used == set()


def test_whole_pictures_with_odd_names_are_read(outcome: Outcome) -> None:
    used = {os.fsencode(image["path"]) for image in outcome.document["images"]}
    # `..png` is a name without a suffix; the trainer doesn't see it either.
    names = {os.fsencode(name) for name in (*ODD_NAMES, *PLAIN_NAMES) if Path(name).suffix} | {NOT_UTF8}
    assert names - used == set()
    assert {"sixteen.png", "bad-exif.jpg", "trailer.jpg", "huge-a.png", "huge-b.png"} <= {os.fsdecode(n) for n in used}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_invisible_characters_in_names_are_told(outcome: Outcome, name: str) -> None:
    assert "image.name" in outcome.about(name)


def test_kinds(outcome: Outcome) -> None:
    assert "image.animated" in outcome.about("moves.webp") & outcome.about("moves.png")
    assert "image.16-bit" in outcome.about("sixteen.png")
    assert "image.alpha" in outcome.about("see-through.png") & outcome.about("invisible.webp")
    assert "image.aspect" in outcome.about("strip-1.png") & outcome.about("strip-2.png")
    assert "image.too-large" in outcome.about("sparse.jpg") & outcome.about("bomb-claims.png")
    assert "image.mislabelled" in outcome.about("postscript.jpg") & outcome.about("gif.jpg") & outcome.about("png.jpg")
    assert "image.name-twin" in outcome.about("Case.png") & outcome.about("Zoe\u0308.png")
    assert "caption.unreadable" in outcome.about("caption-huge.txt") & outcome.about("caption-loop.txt")
    assert "caption.not-utf8" in outcome.about("caption-utf16.txt")


def test_the_json_document_follows_its_schema(outcome: Outcome, project_root: Path) -> None:
    schema = json.loads((project_root / "docs" / "validate.schema.json").read_text())
    jsonschema.validate(outcome.document, schema)
    assert len(outcome.document["findings"]) > 200
    assert any(image["faces"] is not None for image in outcome.document["images"])


def test_memory_stays_under_a_gigabyte(outcome: Outcome) -> None:
    assert outcome.peak_mb < 1000


def test_nothing_that_a_terminal_would_obey_is_printed(outcome: Outcome) -> None:
    for printed in (outcome.raw, outcome.text):
        assert _obeyed(printed) <= {"\n", "\u200d"}
    assert "new\\nline.png" in outcome.text
    assert "right\\u202eto-left.png" in outcome.text


def test_a_second_look_says_the_same(outcome: Outcome) -> None:
    again = check_dataset(outcome.folder, RULES, cache=outcome.folder.parent / "cache" / "validate.sqlite")
    assert len(again.images) == outcome.document["counts"]["images"]


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo().save(tmp_path / "secret.jpg")
    (tmp_path / "secret.txt").write_text("behitek")
    real = os.open

    def denied(path: Any, *rest: Any, **options: Any) -> int:
        # The tests may run as root, whom no permission stops.
        if "secret" in os.fspath(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", denied)
    report = check_dataset(tmp_path, RULES)
    found = {finding.code: finding.message for finding in report.findings}
    assert "Permission denied" in found["image.unreadable"]
    assert "Permission denied" in found["caption.unreadable"]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
)
def test_no_caption_crashes_and_none_is_passed_over(tmp_path: Path, content: bytes) -> None:
    picture, caption = tmp_path / "a.jpg", tmp_path / "a.txt"
    caption.write_bytes(content)
    found = list(caption_findings(tmp_path, [picture], [caption], RULES))
    try:
        begins = content.decode().lstrip(" \t\r").startswith("behitek")
    except UnicodeDecodeError:
        begins = False
    assert begins or any(finding.severity == "error" for finding in found)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(words=st.lists(st.text(min_size=1, max_size=30), min_size=0, max_size=40), name=st.text(min_size=1, max_size=20))
def test_reports_of_any_caption_can_be_printed(tmp_path: Path, words: list[str], name: str) -> None:
    safe = "".join(letter for letter in name if letter not in "/\0").encode("utf-8", "replace").decode()[:20] or "a"
    folder = tmp_path / "photos"
    folder.mkdir(exist_ok=True)
    caption = folder / f"x{safe}.txt"
    caption.write_text("behitek " + " ".join(words), encoding="utf-8", errors="replace")
    try:
        text = report_text(check_dataset(folder, RULES))
        assert _obeyed(text) <= {"\n", "\u200d"}
    finally:
        caption.unlink()
