"""`fluxkit prepare` in a project, and the verbs that use its copy."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.commands import prepare as command
from fluxkit.commands.prepare import prepare
from fluxkit.commands.render import render
from fluxkit.commands.training_data import training_data
from fluxkit.commands.validate import validate
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import InterruptedByUser, UserError
from fluxkit.project.load import load_project
from tests.projects import start_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    make_demo_dataset(folder / "dataset", "behitek", "man", count=6, size=64)
    start_project(folder)
    toml = folder / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("[1024, 512]", "[64]"))
    return folder


def run(root: Path, **options: Any) -> Any:
    return prepare(root, **{"crop": None, "duplicates": None, "out": Output(), **options})


def backends(root: Path) -> list[dict[str, Any]]:
    render(root, folder=None, diff=False, option=(), out=Output(verbosity=-1))
    document = json.loads((root / "config" / "multidatabackend.json").read_text())
    return [backend for backend in document if "instance_data_dir" in backend]


def test_without_a_copy_the_originals_are_trained_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (backend,) = backends(root)
    assert backend["instance_data_dir"] == str(root / "dataset")
    validate(root, out=Output())
    assert "prepared" not in capsys.readouterr().out


def test_the_copy_is_trained_on_and_every_verb_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root)
    printed = capsys.readouterr().out
    assert "6 of 6 photos are in the copy (6 new, 0 unchanged)" in printed
    assert printed.strip().endswith(str(root / "prepared" / "photos"))
    (backend,) = backends(root)
    assert backend["instance_data_dir"] == str(root / "prepared" / "photos")
    capsys.readouterr()
    report = validate(root, out=Output())
    assert report.folder == root / "prepared" / "photos"
    captured = capsys.readouterr()
    assert f"Using the prepared copy: 6 photos, in {root / 'prepared' / 'photos'}" in captured.out
    assert "warning" not in captured.err


def test_a_changed_photo_gets_new_latents(root: Path) -> None:
    run(root)
    (before,) = backends(root)
    assert backends(root) == [before]
    Image.effect_noise((64, 64), 90).convert("RGB").save(root / "dataset" / "demo-01.png")
    run(root)
    (after,) = backends(root)
    assert after["id"] != before["id"]
    assert after["cache_dir_vae"] != before["cache_dir_vae"]


def test_an_outdated_copy_is_used_with_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root)
    Image.effect_noise((64, 64), 90).convert("RGB").save(root / "dataset" / "new.png")
    (root / "dataset" / "demo-02.png").unlink()
    folder = training_data(load_project(root), Output())
    assert folder == root / "prepared" / "photos"
    assert "changed since `fluxkit prepare` (1 new, 1 gone)" in capsys.readouterr().err


def test_a_copy_of_another_folder_is_refused(root: Path) -> None:
    run(root)
    shutil.copytree(root / "dataset", root / "other")
    toml = root / "fluxkit.toml"
    toml.write_text(toml.read_text().replace('path = "dataset"', 'path = "other"'))
    with pytest.raises(UserError, match=r"made from dataset, but \[dataset\] path is other") as caught:
        validate(root, out=Output())
    assert "fluxkit prepare" in caught.value.fix


def test_a_project_may_be_moved(root: Path) -> None:
    run(root)
    moved = root.rename(root.with_name("moved"))
    assert training_data(load_project(moved), Output()) == moved / "prepared" / "photos"


def test_an_interrupted_copy_is_not_trained_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        (root / "prepared").mkdir()
        (root / "prepared" / "journal.jsonl").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "make_copy", interrupted)
        with pytest.raises(InterruptedByUser, match="what was finished is kept"):
            run(root)
    with pytest.raises(UserError, match="was interrupted"):
        validate(root, out=Output())
    run(root)
    validate(root, out=Output())


def test_a_photo_that_can_not_be_read_ends_with_1_and_a_usable_copy(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dataset" / "demo-03.png").write_bytes(b"")
    with pytest.raises(UserError, match="The copy is made, but 1 file could not be used") as caught:
        run(root)
    assert caught.value.exit_code == 1
    assert "demo-03.png: the file is empty (0 bytes)" in capsys.readouterr().err
    assert len(backends(root)) == 1
    (root / "dataset" / "demo-03.png").unlink()
    run(root)


def test_json_is_one_document_even_with_errors(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dataset" / "demo-03.png").write_bytes(b"")
    with pytest.raises(UserError):
        run(root, out=Output(as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert [left["source"] for left in document["left_out"]] == ["demo-03.png"]
    assert {photo["source"] for photo in document["photos"]} == {f"demo-0{n}.png" for n in (1, 2, 4, 5, 6)}


def test_options_are_remembered_and_said(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(root / "dataset" / "demo-01.png", root / "dataset" / "again.png")
    run(root, duplicates="keep")
    capsys.readouterr()
    assert run(root).made == ()
    assert "As the last time: --duplicates keep" in capsys.readouterr().out
    assert run(root, duplicates="leave-out").removed
    monkeypatch.setattr(command, "find_face_detector", lambda _: None)
    with pytest.raises(UserError, match="needs a face detector") as caught:
        run(root, crop="face")
    assert "fluxkit[faces]" in caught.value.fix


def test_an_edited_caption_is_kept_and_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root)
    edited = root / "prepared" / "photos" / "demo-01.txt"
    edited.write_text("behitek my words")
    run(root)
    assert "Kept as they were edited in the copy: demo-01.txt" in capsys.readouterr().out
    (root / "dataset" / "demo-01.txt").write_text("behitek other words")
    run(root)
    assert "your edit is kept" in capsys.readouterr().err
    assert edited.read_text() == "behitek my words"


def test_git_sees_nothing_of_the_copy(root: Path) -> None:
    assert "/prepared/" in (root / ".gitignore").read_text().splitlines()
    run(root)
    assert (root / "prepared" / ".gitignore").read_text() == "*\n", "a project's own may be older"


def test_validate_names_the_commands_that_help(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = root / "dataset" / "demo-01.png"
    photo.rename(photo.with_suffix(".PNG"))
    (root / "dataset" / "demo-02.txt").unlink()
    with pytest.raises(UserError):
        validate(root, out=Output())
    printed = capsys.readouterr().out
    assert "`fluxkit prepare` mends 1 of these findings" in printed
    assert "`fluxkit caption` describes the photos that have no caption (1)." in printed
    run(root)
    capsys.readouterr()
    with pytest.raises(UserError):
        validate(root, out=Output())
    printed = capsys.readouterr().out
    assert "fluxkit prepare` mends" not in printed
    assert "fluxkit caption" in printed
