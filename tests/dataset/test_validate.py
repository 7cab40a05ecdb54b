import json
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands.validate import dataset_rules, validate
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.model import DatasetRules
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.trainer.runs import new_run
from tests.dataset.yunet import write_red_detector

CONFIG = '[project]\nname = "p"\ntrigger = "behitek"\n[dataset]\nresolutions = [64]\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "fluxkit.toml").write_text(CONFIG)
    make_demo_dataset(tmp_path / "dataset", "behitek", "man", size=64)
    return tmp_path


def test_green(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(root, out=Output()).ok
    assert "6 readable photos, 0 errors" in capsys.readouterr().out


def test_here_is_the_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "dataset")
    assert validate(None, out=Output()).ok


def test_errors_are_printed_then_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dataset" / "demo-01.txt").unlink()
    (root / "dataset" / "demo-02.txt").write_text("a man")
    with pytest.raises(UserError, match="2 errors") as raised:
        validate(root, out=Output())
    assert raised.value.exit_code == 1
    printed = capsys.readouterr().out
    assert "demo-01.png" in printed
    assert "demo-02.txt" in printed


def test_json_is_one_document_even_with_errors(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dataset" / "demo-01.txt").unlink()
    with pytest.raises(UserError):
        validate(root, out=Output(as_json=True))
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert {"caption.missing", "dataset.few"} <= {found["code"] for found in document["findings"]}
    assert document["findings"][0].keys() == {"code", "severity", "path", "message", "fix", "related"}


def test_the_preview_is_printed_and_in_the_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    validate(root, out=Output())
    assert "What training will see:\n  64: 6 photos in bucket 1.0" in capsys.readouterr().out
    validate(root, out=Output(as_json=True))
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["release"] == "4.8.0"
    assert training["steps_per_epoch"] == 6 * 1001
    assert training["images"][0]["crops"] == [
        {"resolution": 64, "bucket": "1.0", "box": [0, 0, 64, 64], "final_size": [64, 64], "scale": 1.0}
    ]


def test_the_time_comes_from_the_project_s_own_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {"profile": "24gb", "resolutions": (64,), "batch_size": 1, "base": "x", "revision": None}
    run = new_run(root / "runs", same | {"rehearsal": False, "release": "4.8.0", "steps": 5, "adapter": "lycoris"})
    run = run.update(status="finished", seconds_per_step=0.5)
    validate(root, out=Output())
    assert f"about 1 h 23 min at 0.50 s a step (measured in run {run.record.id})" in capsys.readouterr().out
    run.update(batch_size=4)
    validate(root, out=Output())
    assert f"run {run.record.id}, which had other settings" in capsys.readouterr().out
    (run.folder / "run.json").write_text("{")
    validate(root, out=Output())
    assert "not known yet" in capsys.readouterr().out


def test_the_page_is_written_even_with_errors(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "dataset" / "demo-01.txt").unlink()
    page = root / "report.html"
    with pytest.raises(UserError):
        validate(root, html=page, out=Output())
    assert "caption.missing" in page.read_text()
    assert f"Page: {page} (" in capsys.readouterr().out


def test_a_missing_dataset_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fluxkit.toml").write_text(CONFIG)
    with pytest.raises(UserError, match="1 error"):
        validate(tmp_path, out=Output())
    assert "doesn't exist" in capsys.readouterr().out


def test_a_face_model_that_is_missing_is_one_message(root: Path) -> None:
    (root / "fluxkit.toml").write_text(CONFIG + 'face_model = "models/yunet.onnx"\n')
    with pytest.raises(UserError, match=r"models/yunet\.onnx") as raised:
        validate(root, out=Output())
    assert "face_model" in raised.value.fix


def test_a_face_model_is_found_from_the_projects_folder(root: Path) -> None:
    (root / "models").mkdir()
    write_red_detector(root / "models" / "yunet.onnx")
    (root / "fluxkit.toml").write_text(CONFIG + 'face_model = "models/yunet.onnx"\n')
    assert all(facts.faces is not None for facts in validate(root, out=Output()).images)


def test_the_cache_is_in_the_projects_folder(root: Path) -> None:
    validate(root, out=Output())
    assert [path.name for path in (root / "cache").iterdir()] == ["validate.sqlite"]


def test_the_crop_and_the_subject_come_from_the_settings() -> None:
    def rules(**options: object) -> DatasetRules:
        project = {"name": "p", "trigger": "t", "subject": "dog"}
        return dataset_rules(ProjectConfig.model_validate({"project": project, "train": {"options": options}}))

    assert rules().centre_crop
    assert rules().subject == "dog"
    assert not rules(crop=False).centre_crop
    assert not rules(crop_aspect="preserve").centre_crop
    assert not rules(crop_style="face").centre_crop


def test_a_profiles_photos_a_step_count_unless_the_project_has_its_own(fast_profile: str) -> None:
    def rules(options: dict[str, Any]) -> DatasetRules:
        train = {"profile": fast_profile, "options": options}
        return dataset_rules(ProjectConfig.model_validate({"project": {"name": "p", "trigger": "zwx"}, "train": train}))

    assert rules({}).batch_size == 3
    assert rules({"train_batch_size": 2}).batch_size == 2


def test_batch_and_accumulation_come_from_the_options() -> None:
    options = {"--train_batch_size": 4, "gradient_accumulation_steps": 3}
    config = ProjectConfig.model_validate(
        {"project": {"name": "p", "trigger": "t"}, "train": {"options": options}, "dataset": {"repeats": 2}}
    )
    rules = dataset_rules(config)
    assert (rules.batch_size, rules.repeats, rules.resolutions) == (12, 2, (1024, 512))
    assert (rules.accumulation, rules.release, rules.steps) == (3, "4.8.0", 10_000)


def test_an_unknown_release_is_not_this_verbs_to_report() -> None:
    config = ProjectConfig.model_validate(
        {"project": {"name": "p", "trigger": "t"}, "simpletuner": {"version": "nonsense"}}
    )
    assert dataset_rules(config).release == ""
