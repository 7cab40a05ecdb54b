"""`fluxkit install` and `fluxkit train` on a checkout, with the real uv, the real bash, and a trainer that records."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands import assemble as shared
from fluxkit.commands.install import install
from fluxkit.commands.train import train
from fluxkit.console import Output
from fluxkit.errors import FluxkitError, InterruptedByUser, TrainerError, UserError
from fluxkit.trainer.lockfile import read_lock_file
from fluxkit.trainer.runs import Run, list_runs
from tests.interrupting import interrupting
from tests.projects import small_project

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("wheels")]
FLAT, PACKAGED = "1.4.0", "4.7.0"
QUIET = Output(verbosity=-1)


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_environment_for_all(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commit and the same wheel are the same environment: made once, as for a user's many projects."""
    monkeypatch.setenv("FLUXKIT_CACHE", str(shared_cache))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, weights = small_project(tmp_path)
    toml = root / "fluxkit.toml"
    toml.write_text(f'{toml.read_text()}\n[env]\nFAKE_WEIGHTS = "{weights}"\n')
    monkeypatch.setattr(shared, "choose_platform", lambda _: "cpu")
    return root


def pin(project: Path, version: str, upstream_folder: Path) -> None:
    toml = project / "fluxkit.toml"
    text = toml.read_text().replace('version = "4.8.0"', f'version = "{version}" # mine')
    toml.write_text(text.replace('source = "pypi"', f'source = "git"\nmirror = "{upstream_folder}"'))


def installed(project: Path, version: str, upstream) -> Path:
    """Install from the repository; return the checkout."""
    upstream.release(version)
    pin(project, version, upstream.folder)
    checkout = install(project, python=None, out=QUIET).checkout
    assert checkout is not None
    return checkout


def run_train(project: Path, *option: str) -> Run | None:
    return train(project, rehearse=False, dry_run=False, fresh=True, option=option, out=QUIET)


def seen(run: Run) -> dict[str, Any]:
    return json.loads((run.output_dir / "seen.json").read_text())


def snapshot(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("version", [FLAT, PACKAGED])
def test_train_sh_is_run_in_the_runs_folder_and_nothing_of_the_users_leaks_in(
    project: Path, upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    checkout = installed(project, version, upstream)
    before = snapshot(checkout)
    mine = tmp_path / "mine"
    for place in (mine / "accelerate", Path(os.environ["HOME"]) / ".cache" / "huggingface" / "accelerate"):
        place.mkdir(parents=True)
        (place / "default_config.yaml").write_text("num_processes: 8\n")
    (mine / "config").mkdir()
    (mine / "config" / "config.env").write_text("export SEEN_MINE=yes\nexport ACCELERATE_CONFIG_PATH=/mine\n")
    (mine / "bash_env").write_text("export SEEN_MINE=yes\n")
    names = ("ENV", "CONFIG_PATH", "CONFIG_TYPE", "VENV_PATH", "PYTHONPATH", "ACCELERATE_CONFIG_PATH", "GIT_DIR")
    for name in (*names, "VIRTUAL_ENV", "ACCELERATE_EXTRA_ARGS", "ACCELERATE_NUM_PROCESSES", "TRAINING_NUM_PROCESSES"):
        monkeypatch.setenv(name, str(mine))
    monkeypatch.setenv("BASH_ENV", str(mine / "bash_env"))
    monkeypatch.setenv("HF_HOME", str(mine))
    monkeypatch.chdir(mine)
    run = run_train(project)
    assert run is not None
    assert run.record.status == "finished"
    told = seen(run)
    env = told["env"]
    assert told["cwd"] == str(run.folder)
    assert told["file"].startswith(str(checkout))
    assert told["config"]["--output_dir"] == str(run.output_dir)
    expected = run.folder / "config" / "accelerate.yaml"
    assert f"launch --config_file={expected}" in env["SEEN_ACCELERATE"]
    assert "num_processes: 1" in expected.read_text()
    assert (env["ENV"], env["CONFIG_BACKEND"], env["DISABLE_UPDATES"]) == ("default", "json", "1")
    assert env["VENV_PATH"] == env["VIRTUAL_ENV"]
    assert Path(env["VENV_PATH"]).parent.name == "envs"
    assert env["PATH"].startswith(f"{env['VENV_PATH']}/bin:")
    assert env["PYTHONPATH"].split(":") == [str(project.resolve() / "cache" / "shims"), str(checkout)]
    assert [
        name for name, value in env.items() if str(mine) in value and name not in ("HF_HOME", "PWD", "OLDPWD")
    ] == []
    assert not {"SEEN_MINE", "BASH_ENV", "GIT_DIR", "CONFIG_PATH"} & set(env)
    assert (run.folder / "debug.log").is_file()
    assert snapshot(checkout) == before


def test_a_failed_training_is_a_failure_whatever_train_sh_returns(project: Path, upstream) -> None:
    installed(project, FLAT, upstream)
    for mode, said in (("crash", "failed with exit code 1"), ("silent", "wrote no final weights")):
        with pytest.raises(TrainerError, match=said):
            run_train(project, f"webhook_config={mode}")
        assert list_runs(project / "runs")[-1].record.status == "failed"


def test_ctrl_c_reaches_the_trainer_through_the_shell_and_lets_it_finish(project: Path, upstream) -> None:
    installed(project, PACKAGED, upstream)
    with interrupting(project, "runs/*/output/up"), pytest.raises(InterruptedByUser):
        run_train(project, "webhook_config=sleep")
    (run,) = list_runs(project / "runs")
    assert (run.output_dir / "ended").read_text() == "well"


def test_install_says_where_from_and_is_quick_and_offline_the_second_time(
    project: Path, upstream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = installed(project, PACKAGED, upstream)
    source = read_lock_file(project / "fluxkit.lock")["cpu"].lock.source
    assert (source.url, source.commit) == (str(upstream.folder), upstream.head())
    upstream.folder.rename(tmp_path / "gone")
    before = (project / "fluxkit.lock").read_bytes()
    install(project, python=None, out=Output())
    assert "was ready already" in capsys.readouterr().out
    assert (project / "fluxkit.lock").read_bytes() == before
    # A checkout that is gone comes back from the cache; the environment stays.
    shutil.rmtree(checkout)
    environment = install(project, python=None, out=Output())
    assert "Taking SimpleTuner 4.7.0 from the cache" in capsys.readouterr().out
    assert environment.checkout == checkout
    assert (checkout / "simpletuner" / "train.sh").is_file()


def test_a_moved_tag_changes_nothing_in_the_project(project: Path, upstream, tmp_path: Path, monkeypatch) -> None:
    installed(project, PACKAGED, upstream)
    before = {path: path.read_bytes() for path in (project / "fluxkit.toml", project / "fluxkit.lock")}
    upstream.move_tag(PACKAGED, forget=True)
    monkeypatch.setenv("FLUXKIT_CACHE", str(tmp_path / "another-machine"))
    with pytest.raises(FluxkitError, match="moved upstream"):
        install(project, python=None, out=QUIET)
    assert {path: path.read_bytes() for path in before} == before


def test_source_on_the_command_line_is_kept_in_the_project(
    project: Path, tmp_path: Path, write_release, upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream.release(PACKAGED)
    pin(project, PACKAGED, upstream.folder)
    toml = project / "fluxkit.toml"
    folder = tmp_path / "mine"
    write_release(folder, PACKAGED)
    before = snapshot(folder)
    environment = install(project, python=None, out=Output(), source=str(folder))
    assert environment.checkout == folder
    printed = capsys.readouterr().out
    assert 'fluxkit.toml now says source = "path"' in printed
    assert "not pinned" in printed
    text = toml.read_text()
    assert f'path = "{folder}"' in text
    assert "mirror" not in text  # that was one of the repository
    assert '"4.7.0" # mine' in text
    assert "unpinned = true" in (project / "fluxkit.lock").read_text()
    run = run_train(project)
    assert run is not None
    assert seen(run)["file"].startswith(str(folder))
    assert snapshot(folder) == before


def test_a_source_that_can_not_be_installed_leaves_the_project_as_it_was(
    project: Path, tmp_path: Path, write_release
) -> None:
    write_release(tmp_path / "mine", "4.6.9")
    before = {path: path.read_bytes() for path in project.rglob("fluxkit.*")}
    with pytest.raises(UserError, match=r"4\.6\.9, not 4\.8\.0"):
        install(project, python=None, out=QUIET, source=str(tmp_path / "mine"))
    assert {path: path.read_bytes() for path in project.rglob("fluxkit.*")} == before
