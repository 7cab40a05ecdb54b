from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands import init as module
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.hardware import Gpu, HostMemory
from fluxkit.project.load import load_project
from fluxkit.rendering import profiles


@pytest.fixture(autouse=True)
def _profiles_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("card", int(23.6 * 2**30), 0, "1")])
    monkeypatch.setattr(module, "host_memory", lambda: HostMemory(64 * 2**30, 60 * 2**30, 0))


def run(directory: Path, **options: Any) -> None:
    flags = {"trigger": None, "subject": None, "dataset": None, "profile": None, "simpletuner": None, "yes": False}
    module.init(directory, **(flags | options), out=Output())


def test_flags_become_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "me", trigger="behitek", subject="woman", dataset=Path("pics"), profile="12gb", simpletuner="1.2.5")
    config = load_project(tmp_path / "me").config
    assert (config.project.name, config.project.trigger, config.project.subject) == ("me", "behitek", "woman")
    assert (config.dataset.path, config.train.profile) == ("pics", "12gb")
    # Before 2.2 there is no package.
    assert (config.simpletuner.version, config.simpletuner.source) == ("1.2.5", "git")
    printed = capsys.readouterr().out
    assert "fluxkit.toml" in printed
    assert "fluxkit validate" in printed


@pytest.mark.parametrize(("asked", "version", "said"), [
    (None, "4.8.0", ""), ("v4.10.1", "4.10.1", ""), ("4.6.1", "4.6.1", "has not tried SimpleTuner 4.6.1"),
    ("9.0.0", "9.0.0", "newer than this fluxkit"),
])  # fmt: skip
def test_the_pinned_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: str | None, version: str, said: str
) -> None:
    run(tmp_path / "me", trigger="behitek", simpletuner=asked)
    pinned = load_project(tmp_path / "me").config.simpletuner
    assert (pinned.version, pinned.source) == (version, "pypi")
    assert said in capsys.readouterr().err


def test_no_version_of_the_trainer_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no version of SimpleTuner"):
        run(tmp_path / "me", trigger="behitek", simpletuner="latest")
    assert not (tmp_path / "me").exists()


def test_questions_on_a_terminal_until_the_trigger_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["face", "behitek", "dog", "my dog's photos"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_args, default: next(answers))  # noqa: ARG005
    run(tmp_path)
    config = load_project(tmp_path).config
    assert (config.project.trigger, config.project.subject, config.dataset.path) == (
        "behitek",
        "dog",
        "my dog's photos",
    )
    assert next(answers, None) is None


def test_every_question_has_a_default_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_args, default: default)
    run(tmp_path / "jo")
    assert load_project(tmp_path / "jo").config.project.trigger == "fluxv1"


def test_yes_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.prompt", lambda *_args, **_kwargs: pytest.fail("asked"))
    run(tmp_path / "anna", yes=True)
    assert load_project(tmp_path / "anna").config.project.trigger == "annav1"


def test_without_a_terminal_a_trigger_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(UserError, match="trigger") as raised:
        run(tmp_path)
    assert "--trigger" in raised.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trigger", ["face", "two words", "x"])
def test_a_bad_trigger_writes_nothing(tmp_path: Path, trigger: str) -> None:
    with pytest.raises(UserError):
        run(tmp_path, trigger=trigger)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gib", "profile"),
    [
        (79.6, "48gb"), (44.9, "48gb"), (28.9, "48gb"), (28.7, "24gb"), (23.6, "24gb"), (22.0, "24gb"), (18.5, "16gb"),
        (15.9, "16gb"), (14.7, "12gb"), (11.6, "12gb"),
    ],
)  # fmt: skip
def test_auto_goes_by_the_gpus_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: float, profile: str
) -> None:
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("card", int(gib * 2**30), 0, "1")])
    run(tmp_path, trigger="behitek", profile="auto")
    assert load_project(tmp_path).config.train.profile == profile


@pytest.mark.parametrize(
    ("ram", "swap", "profile"), [(15, 0, "12gb-nf4"), (15, 8, "12gb"), (17, 0, "12gb"), (8, 0, "12gb")]
)
def test_auto_takes_what_the_ram_holds_where_another_stands_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ram: int,
    swap: int,
    profile: str,
) -> None:
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("card", int(11.6 * 2**30), 0, "1")])
    monkeypatch.setattr(module, "host_memory", lambda: HostMemory(ram * 2**30, ram * 2**30, swap * 2**30))
    run(tmp_path, trigger="behitek", profile="auto")
    assert load_project(tmp_path).config.train.profile == profile
    said = capsys.readouterr()
    assert ("taking 12gb-nf4" in said.out + said.err) is (profile == "12gb-nf4")


def test_nobody_is_given_a_profile_that_trains_otherwise() -> None:
    given = {module.profile_for_memory(gib) for gib in range(11, 200)}
    assert given == {"12gb", "16gb", "24gb", "48gb"}


def test_who_names_it_shows_as_many_photos_in_a_third_of_the_steps(
    tmp_path: Path, fast_profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, trigger="behitek", profile=fast_profile)
    train = load_project(tmp_path).config.train
    assert (train.profile, train.steps, train.checkpoint_every, train.validate_every) == (fast_profile, 3340, 334, 334)
    assert "24gb-fast shows 3 photos a step: 3340 steps show as many as 10000 of one photo." in capsys.readouterr().out


def test_a_small_gpu_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "gpus", lambda: [Gpu("card", 8 * 2**30, 0, "1")])
    with pytest.raises(UserError, match=r"8\.0 GiB") as raised:
        run(tmp_path, trigger="behitek")
    assert "--profile" in raised.value.fix


def test_no_gpu_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "gpus", list)
    run(tmp_path, trigger="behitek")
    assert load_project(tmp_path).config.train.profile == "24gb"
    assert "No NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("profile", "part"), [("80gb", "not measured"), ("24g", '"24gb"'), ("24gb-fats", '"24gb-fast"')]
)
def test_unknown_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, part: str) -> None:
    monkeypatch.setattr(profiles, "CLASSES", (*profiles.CLASSES, "80gb"))
    with pytest.raises(UserError) as raised:
        run(tmp_path, trigger="behitek", profile=profile)
    assert part in raised.value.message
    assert "12gb" in raised.value.fix


def test_a_second_init_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, trigger="behitek")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "README.md").unlink()
    capsys.readouterr()
    run(tmp_path, trigger="zwxq", profile="12gb")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert "kept" in capsys.readouterr().out


def test_an_existing_dataset_elsewhere_is_named_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    monkeypatch.chdir(tmp_path)
    run(tmp_path / "p", trigger="behitek", dataset=Path("photos"))
    assert load_project(tmp_path / "p").dataset_dir == photos


def test_an_odd_folder_name_is_no_obstacle(tmp_path: Path) -> None:
    run(tmp_path / "Zoë & me (2)", trigger="behitek")
    assert load_project(tmp_path / "Zoë & me (2)").config.project.name == "Zoë-me-2"
