"""`fluxkit upgrade` with the real uv on made-up wheels, whose launcher writes what SimpleTuner writes, or fails."""

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.commands import upgrade as command
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import InstallError, TrainerError, UserError
from fluxkit.files import sha256_file
from fluxkit.project.load import load_project
from fluxkit.trainer import environment, pin
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.lockfile import with_lock, write_lock_file
from fluxkit.trainer.releases import Release, find_release
from fluxkit.trainer.runs import new_run
from fluxkit.trainer.schema import load_schema
from tests.projects import start_project
from tests.trainer.checkpointed import write_checkpoint
from tests.trainer.test_runs import RECORD

pytestmark = pytest.mark.slow  # each installs a wheel
PARSER = """
import argparse
def get_argument_parser():
    parser = argparse.ArgumentParser()
    for name in {names!r}:
        parser.add_argument("--" + name)
    return parser
"""
# A safetensors file by hand: the environment holds nothing but the wheel.
TRAINER = """
import json, os, struct
from pathlib import Path
def main():
    if {broken}:
        raise SystemExit("the trainer broke")
    config = json.loads(Path("config/config.json").read_text())
    names = [f"lycoris_m{{i}}.lokr_w1" for i in range(30)]
    header = {{n: {{"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}} for i, n in enumerate(names)}}
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + b"\\0\\0\\x80?" * len(names)
    out = Path(config["--output_dir"])
    for folder in (out / "checkpoint-4", out):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pytorch_lora_weights.safetensors").write_bytes(data)
"""


def make_wheel(folder: Path, version: str, *, broken: bool = False) -> str:
    """Write a stand-in for a release; return its requirement."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"simpletuner-{version}-py3-none-any.whl"
    info = f"simpletuner-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        parser = PARSER.format(names=list(load_schema(version).options))
        archive.writestr("simpletuner/helpers/configuration/cmd_args.py", parser)
        archive.writestr("simpletuner/launcher.py", TRAINER.format(broken=broken))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: simpletuner\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nsimpletuner = simpletuner.launcher:main\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"simpletuner=={version} --hash=sha256:{sha256_file(wheel)}\n"


def use_wheels(wheels: Path, requirements: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def shipped(release: Release, platform: str) -> Lock | None:
        text = requirements.get(release.version)
        return Lock(replace(release, python=">=3.11"), platform, text, as_of="2026-11-22") if text else None

    monkeypatch.setattr(pin, "shipped_lock", shipped)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")


def make_project(root: Path) -> None:
    make_demo_dataset(root / "dataset", "behitek", "man")
    start_project(root, simpletuner="4.8.0")
    toml = root / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("[train.options]", "[train.options]\nflux_schedule_shift = 3  # mine\n#"))


def locked_for(version: str) -> Lock:
    lock = pin.shipped_lock(find_release(version), "cpu")
    assert lock is not None
    return lock


def state(root: Path) -> dict[str, bytes]:
    names = ("fluxkit.toml", "fluxkit.lock", "prompts.toml", ".gitignore", "README.md")
    files = {name: root / name for name in names} | {f"{name}.bak": root / f"{name}.bak" for name in names[:2]}
    return {name: path.read_bytes() for name, path in files.items() if path.is_file()}


@pytest.fixture
def wheels(tmp_path: Path) -> dict[str, str]:
    return {version: make_wheel(tmp_path / "wheels", version) for version in ("4.8.0", "4.10.1")}


@pytest.fixture
def project(tmp_path: Path, wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    use_wheels(tmp_path / "wheels", wheels, monkeypatch)
    root = tmp_path / "project"
    make_project(root)
    # As install leaves it; the old release's environment is not needed to move away from it.
    write_lock_file(root / "fluxkit.lock", with_lock({}, locked_for("4.8.0"), "3.12.1"))
    return root


def upgrade(project: Path, version: str | None = None, **options: object) -> None:
    defaults = {"dry_run": False, "skip_rehearsal": False, "out": Output()}
    command.upgrade(project, version=version, **{**defaults, **options})  # type: ignore[arg-type]


def test_up_and_back_again_is_the_same_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(project)
    upgrade(project)
    assert load_project(project).config.simpletuner.version == "4.10.1"
    printed = capsys.readouterr().out
    # What the user must see before the switch: what the release does differently, and the config's difference.
    assert "attention_mechanism" in printed
    assert '+    "--report_to": "none"' in printed
    assert "trains this project" in printed
    after = state(project)
    assert after["fluxkit.toml.bak"] == before["fluxkit.toml"]
    assert b"flux_schedule_shift = 3  # mine" in after["fluxkit.toml"]
    upgrade(project, "4.8.0")
    back = state(project)
    # The interpreter is this test's own, not the one that the lock was made with.
    back["fluxkit.lock"] = re.sub(rb'python = "[\d.]+"', b'python = "3.12.1"', back["fluxkit.lock"])
    assert {name: back[name] for name in before} == before
    assert not (project / "cache" / command.STAGING).exists()


def test_an_unfinished_run_is_said_before_anything_is_installed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {**RECORD, "release": "4.8.0", "steps": 100}
    run = new_run(project / "runs", record).update(status="interrupted")

    def stop(*_: object, **__: object) -> None:
        raise InstallError("no network")

    monkeypatch.setattr(environment, "install", stop)
    with pytest.raises(InstallError):
        upgrade(project)
    assert "is not finished" not in capsys.readouterr().err  # it has no checkpoint: it starts anew in any release
    write_checkpoint(run.output_dir, 50)
    with pytest.raises(InstallError):
        upgrade(project)
    said = capsys.readouterr().err
    assert f"Run {run.record.id} is not finished: 4.10.1 was seen to go on from checkpoints of 4.8.0" in said
    assert "`fluxkit upgrade 4.8.0` returns to it" in said


@pytest.mark.slow
def test_a_dry_run_does_everything_but_switch(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(project)
    upgrade(project, dry_run=True, out=Output(as_json=True))
    report = json.loads(capsys.readouterr().out)
    assert (report["from"], report["to"], report["switched"]) == ("4.8.0", "4.10.1", False)
    assert "report_to" in report["diff"]
    assert state(project) == before
    assert environment.is_ready(environment.environment_for(locked_for("4.10.1")))


@pytest.mark.slow
def test_a_rehearsal_that_fails_changes_nothing(
    tmp_path: Path, project: Path, wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {**wheels, "4.10.1": make_wheel(tmp_path / "wheels", "4.10.1", broken=True)}
    use_wheels(tmp_path / "wheels", broken, monkeypatch)
    before = state(project)
    with pytest.raises(TrainerError, match="nothing was changed"):
        upgrade(project)
    assert state(project) == before
    whole = {**wheels, "4.10.1": make_wheel(tmp_path / "wheels", "4.10.1")}
    use_wheels(tmp_path / "wheels", whole, monkeypatch)
    upgrade(project)
    assert load_project(project).config.simpletuner.version == "4.10.1"


def test_an_option_that_vanished_refuses_the_upgrade_and_is_named(project: Path) -> None:
    toml = project / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("flux_schedule_shift = 3", "enable_group_offload = true"))
    before = state(project)
    with pytest.raises(UserError, match="enable_group_offload") as caught:
        upgrade(project)
    assert "nothing was changed" in caught.value.message
    assert state(project) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda m: m.setenv("UV_FIND_LINKS", "/nowhere"), "could not be installed|can't be reached"),
        (lambda m: m.setenv("FLUXKIT_CACHE", "/dev/null/full"), "can't be written"),
    ],
)
def test_an_install_that_fails_changes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], said: str
) -> None:
    before = state(project)
    with monkeypatch.context() as faulty:
        fault(faulty)
        with pytest.raises(InstallError, match=said):
            upgrade(project)
    assert state(project) == before
    upgrade(project)
    assert load_project(project).config.simpletuner.version == "4.10.1"


def test_a_wrong_hash_changes_nothing(
    tmp_path: Path, project: Path, wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(project)
    forged = wheels["4.10.1"].split("sha256:")[0] + "sha256:" + "0" * 64 + "\n"
    use_wheels(tmp_path / "wheels", {**wheels, "4.10.1": forged}, monkeypatch)
    with pytest.raises(InstallError, match="hash"):
        upgrade(project)
    assert state(project) == before


@pytest.mark.slow
def test_an_edit_made_during_the_rehearsal_is_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = project / "fluxkit.toml"
    real = command._rehearse

    def edit_meanwhile(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        toml.write_text(toml.read_text() + "\n# edited\n")

    monkeypatch.setattr(command, "_rehearse", edit_meanwhile)
    before = state(project)
    with pytest.raises(UserError, match="was changed while"):
        upgrade(project)
    assert state(project) == {**before, "fluxkit.toml": before["fluxkit.toml"] + b"\n# edited\n"}


def test_a_proven_release_has_to_be_rehearsed(project: Path) -> None:
    with pytest.raises(UserError, match="has to be"):
        upgrade(project, skip_rehearsal=True)


@pytest.mark.slow
def test_the_newest_again_does_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upgrade(project)
    before = state(project)
    upgrade(project)
    assert "already" in capsys.readouterr().out
    assert state(project) == before


# Kills itself with SIGKILL when the n-th line is about to be said: every stage of the upgrade begins with one.
DRIVER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pytest
import test_upgrade as here
from fluxkit.console import Output
from fluxkit.commands import upgrade
root, left = Path(sys.argv[1]), int(sys.argv[2])
wheels = {wheels!r}
here.use_wheels(root.parent / "wheels", wheels, pytest.MonkeyPatch())

def say(self, text="", **_):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
Output.say = say
Output.result = say
upgrade.upgrade(root, version=None, dry_run=False, skip_rehearsal=False, out=Output())
print(left)
"""


@pytest.mark.slow
def test_killed_at_any_stage_the_project_is_the_old_or_the_new_one(project: Path, wheels: dict[str, str]) -> None:
    before = state(project)
    code = DRIVER.format(tests=str(Path(__file__).parent), wheels=wheels)
    for stage in range(40):
        command_line = [sys.executable, "-c", code, project, str(stage)]
        done = subprocess.run(command_line, check=False, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        load_project(project)  # the next fluxkit command
        now = state(project)
        switched = "4.10.1" in load_project(project).config.simpletuner.version
        if switched:
            assert now["fluxkit.toml.bak"] == before["fluxkit.toml"]
            assert now["fluxkit.lock.bak"] == before["fluxkit.lock"]
            break
        assert now == before
    else:
        pytest.fail("the upgrade never came to its end")
    assert stage > 6  # it was killed at many stages before
