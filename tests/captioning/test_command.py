"""`fluxkit caption` as its user meets it, with a tiny Florence-2 through the real loading code."""

import io
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkit.captioning import captioner as module
from fluxkit.captioning.run import Captioned, Description
from fluxkit.commands import caption as command
from fluxkit.commands.caption import caption
from fluxkit.commands.prepare import prepare
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import InterruptedByUser, UserError
from tests.projects import start_project


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    make_demo_dataset(folder / "dataset", "behitek", "man", count=3, size=64)
    for path in (folder / "dataset").glob("*.txt"):
        path.unlink()
    start_project(folder)
    monkeypatch.setattr(module, "MAX_NEW_TOKENS", 6)
    return folder


def run(root: Path, model: Path | str | None, **options: Any) -> list[Captioned]:
    defaults = {"overwrite": False, "review_all": False, "batch_size": None, "out": Output()}
    return caption(root, model=str(model) if model else None, **{**defaults, **options})


def captions(root: Path, folder: str = "dataset") -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((root / folder).iterdir()) if ".txt" in path.name}


class Fixed:
    """Stands in for the model where the test is about something else."""

    def __init__(self, text: str) -> None:
        self.text = text

    def describe(self, images: Any) -> list[Description]:
        return [Description(self.text) for _ in images]


@pytest.mark.parametrize("name", ["tiny_florence", "tiny_llava"])
def test_every_photo_gets_a_line_with_the_trigger_first(
    root: Path, name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run(root, request.getfixturevalue(name), batch_size=2)
    made = captions(root)
    assert list(made) == ["demo-01.txt", "demo-02.txt", "demo-03.txt"]
    for text in made.values():
        assert text.startswith("behitek ")
        assert text.count("\n") == 1
    printed = capsys.readouterr().out
    assert "3 photos to caption" in printed
    assert "3/3 demo-03.png: behitek" in printed


def test_existing_captions_stay_and_a_second_run_loads_nothing(
    root: Path, tiny_florence: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "dataset" / "demo-02.txt").write_text("behitek mine")
    run(root, tiny_florence)
    before = captions(root)
    assert before["demo-02.txt"] == "behitek mine"
    assert "2 of 3 photos to caption; 1 captions stay as they are" in capsys.readouterr().out
    monkeypatch.setattr(command, "find_model", None)
    assert run(root, tiny_florence) == []
    assert captions(root) == before


def test_overwrite_keeps_the_older_ones_and_goes_on_where_it_stopped(
    root: Path, tiny_florence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        (root / "dataset" / f"demo-0{number}.txt").write_text(f"behitek mine {number}")
    (root / "dataset" / "demo-01.txt.bak").write_text("an older backup")
    real = command.caption_pictures

    def stopping(*args: Any, **options: Any) -> Iterator[Captioned]:
        for number, result in enumerate(real(*args, **options), start=1):
            yield result
            if number == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "caption_pictures", stopping)
        with pytest.raises(InterruptedByUser, match="2 of 3 captions were made and are kept") as caught:
            run(root, tiny_florence, overwrite=True)
    assert caught.value.exit_code == 130
    done = captions(root)
    assert done["demo-03.txt"] == "behitek mine 3"
    assert done["demo-01.txt.bak"] == "an older backup"
    assert (done["demo-01.txt.bak2"], done["demo-02.txt.bak"]) == ("behitek mine 1", "behitek mine 2")
    results = run(root, tiny_florence, overwrite=True)
    assert [result.picture.name for result in results] == ["demo-03.png"]
    finished = captions(root)
    assert {name: text for name, text in finished.items() if name in done and name != "demo-03.txt"} == {
        name: text for name, text in done.items() if name != "demo-03.txt"
    }
    assert finished["demo-03.txt.bak"] == "behitek mine 3"
    assert run(root, tiny_florence, overwrite=True) == []


def test_a_killed_process_keeps_its_captions_and_the_next_goes_on(root: Path, tiny_florence: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from fluxkit.captioning.models import ModelSpec\nfrom fluxkit.captioning.run import Description\n"
        "from fluxkit.commands import caption\nfrom fluxkit.console import Output\n"
        "class Slow:\n"
        "    def describe(self, images):\n"
        "        if list(Path(sys.argv[1]).glob('dataset/*.txt')): print('second', flush=True); time.sleep(60)\n"
        "        return [Description('a man') for _ in images]\n"
        "caption.find_model = lambda name: ModelSpec(name, 'florence', True)\n"
        "caption.loaded = lambda spec, instruction: Slow()\n"
        "caption.caption(Path(sys.argv[1]), model=sys.argv[2], overwrite=False, review_all=False, batch_size=1, "
        "out=Output())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(tiny_florence)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert any(line.strip() == "second" for line in process.stdout)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    first = captions(root)
    assert list(first) == ["demo-01.txt"]
    assert not list((root / "dataset").glob(".*"))
    assert len(run(root, tiny_florence)) == 2
    assert captions(root)["demo-01.txt"] == first["demo-01.txt"]


def test_a_damaged_photo_ends_with_1_and_the_others_are_captioned(
    root: Path, tiny_florence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dataset" / "demo-02.png").write_bytes(b"<html>")
    with pytest.raises(UserError, match="1 of 3 photos got no caption") as caught:
        run(root, tiny_florence)
    assert caught.value.exit_code == 1
    assert list(captions(root)) == ["demo-01.txt", "demo-03.txt"]
    assert "demo-02.png: the picture can't be used" in capsys.readouterr().err


def test_json_is_one_document(root: Path, tiny_florence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dataset" / "demo-01.txt").write_text("behitek with brown hair")
    (root / "dataset" / "demo-02.png").write_bytes(b"")
    with pytest.raises(UserError):
        run(root, tiny_florence, out=Output(as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert [(photo["file"], photo["status"]) for photo in document["photos"]] == [
        ("demo-01.png", "kept"), ("demo-02.png", "failed"), ("demo-03.png", "made"),
    ]  # fmt: skip
    assert document["photos"][0]["traits"] == {"hair colour": "brown hair"}
    assert document["photos"][2]["caption"].startswith("behitek ")


def test_words_about_the_person_are_named(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_florence: Path
) -> None:
    monkeypatch.setattr(command, "loaded", lambda *_: Fixed("The image shows a young man with blue eyes."))
    run(root, tiny_florence)
    captured = capsys.readouterr()
    assert captions(root)["demo-01.txt"] == "behitek a young man with blue eyes.\n"
    assert '"blue eyes" (eye colour)' in captured.err
    assert "fluxkit caption --review" in captured.out


def test_the_prepared_copy_is_captioned_where_there_is_one(root: Path, tiny_florence: Path) -> None:
    quiet = Output(verbosity=-1)
    prepare(root, crop=None, duplicates=None, out=quiet)
    run(root, tiny_florence)
    made = captions(root, "prepared/photos")
    assert len(made) == 3
    assert captions(root) == {}, "the originals' folder is only read"
    prepare(root, crop=None, duplicates=None, out=quiet)
    assert captions(root, "prepared/photos") == made


def test_a_missing_extra_is_one_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="needs packages that are not installed: torch") as caught:
        run(root, None)
    assert "fluxkit[caption]" in caught.value.fix


def test_a_project_that_trains_without_captions_says_what_to_do(root: Path) -> None:
    toml = root / "fluxkit.toml"
    toml.write_text(toml.read_text().replace('"textfile"', '"trigger"', 1))
    with pytest.raises(UserError, match="trains without captions") as caught:
        run(root, None)
    assert 'captions = "textfile"' in caught.value.fix


@pytest.mark.parametrize("text", ["text{trigger}"])
def test_the_instruction_names_the_subject_and_leaves_out_what_stays(root: Path, text: str) -> None:
    from fluxkit.project.load import load_project

    toml = root / "fluxkit.toml"
    toml.write_text(toml.read_text().replace('subject = "man"', f'subject = "{text}"'))
    instruction = command._instruction(load_project(root))
    assert text in instruction
    assert "{subject}" not in instruction
    assert "Leave out" in instruction


def test_review_opens_each_caption_in_the_user_s_editor(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import os, sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\ntext = path.read_text()\n"
        f"with Path({str(tmp_path / 'seen')!r}).open('a') as seen: seen.write(text)\n"
        "path.write_text(text.replace('with brown hair ', ''))\n"
        "os.utime(path, (1, 1))\n"
    )
    monkeypatch.setenv("VISUAL", shlex.join([sys.executable, str(editor)]))
    for number in (1, 2, 3):
        (root / "dataset" / f"demo-0{number}.txt").write_text(f"behitek a man with brown hair in room {number}\n")
    run(root, None, review_all=True)
    assert captions(root)["demo-02.txt"] == "behitek a man in room 2\n"
    seen = (tmp_path / "seen").read_text()
    assert seen.count(str(root / "dataset")) == 3
    assert "describes the person" not in capsys.readouterr().err, "the lint looks at what is there after the review"
    (root / "dataset" / "demo-03.txt").write_text("behitek new\n")
    run(root, None, review_all=True)
    assert (tmp_path / "seen").read_text().count(str(root / "dataset")) == 4, "only what changed since is opened again"


def test_review_without_a_terminal_or_an_editor(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UserError, match="no terminal"):
        run(root, None, review_all=True)
    monkeypatch.setenv("EDITOR", "no-such-editor-anywhere")
    (root / "dataset" / "demo-01.txt").write_text("behitek x")
    for path in (root / "dataset").glob("demo-0[23].png"):
        path.unlink()
    with pytest.raises(UserError, match="editor could not be used"):
        run(root, None, review_all=True)
    assert captions(root) == {"demo-01.txt": "behitek x"}
