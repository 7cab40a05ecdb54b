from pathlib import Path

import pytest

from fluxkit.trainer.launch import RunPlan, plan_launch, prepare
from fluxkit.trainer.sources.checkout import open_checkout


def plan(tmp_path: Path, **inherited: str):
    return plan_launch(
        environment_bin=tmp_path / "env" / "bin",
        run_dir=tmp_path / "run",
        extra_env={"PYTHONPATH": "shims"},
        offline=True,
        inherited={"PATH": "/usr/bin", **inherited},
    )


def test_nothing_of_the_users_settings_leaks_into_the_trainer(tmp_path: Path) -> None:
    env = plan(
        tmp_path, CONFIG_PATH="/mine", ENV="mine", ACCELERATE_CONFIG_PATH="/mine", PYTHONPATH="/mine", VENV_PATH="/mine"
    ).env
    assert "/mine" not in env.values()
    assert env["ENV"] == "default"
    assert env["PYTHONPATH"] == "shims"


def test_the_environment_comes_first_on_path_for_accelerate(tmp_path: Path) -> None:
    assert plan(tmp_path).env["PATH"] == f"{tmp_path}/env/bin:/usr/bin"


def test_tokens_reach_the_trainer_but_never_the_screen(tmp_path: Path) -> None:
    launch = plan(tmp_path, HF_TOKEN="hf_secret")
    assert launch.env["HF_TOKEN"] == "hf_secret"
    assert "hf_secret" not in launch.public_env().values()


def test_the_accelerate_config_that_is_named_exists(tmp_path: Path) -> None:
    launch = plan(tmp_path)
    prepare(launch, use_cpu=True)
    text = Path(launch.env["ACCELERATE_CONFIG_PATH"]).read_text()
    assert "num_processes: 1" in text
    assert "use_cpu: true" in text


def test_a_local_base_keeps_the_trainer_offline(tmp_path: Path) -> None:
    assert plan(tmp_path).env["HF_HUB_OFFLINE"] == "1"


def plan_checkout(tmp_path: Path, script: str, **extra: str) -> RunPlan:
    folder = tmp_path / "checkout"
    (folder / script).parent.mkdir(parents=True, exist_ok=True)
    (folder / script).touch()
    return plan_launch(
        environment_bin=tmp_path / "env" / "bin",
        run_dir=tmp_path / "run",
        extra_env=extra,
        offline=True,
        checkout=open_checkout(folder),
        inherited={"PATH": "/usr/bin", "PYTHONPATH": "/mine", "VENV_PATH": "/mine"},
    )


@pytest.mark.parametrize(("script", "link"), [("train.sh", "train.py"), ("simpletuner/train.sh", "simpletuner")])
def test_a_checkouts_own_launcher_is_run_where_the_run_is(tmp_path: Path, script: str, link: str) -> None:
    launch = plan_checkout(tmp_path, script)
    assert launch.argv == ("bash", "-e", f"{tmp_path}/checkout/{script}")
    assert launch.cwd == tmp_path / "run"
    prepare(launch, use_cpu=True)
    assert (launch.cwd / link).readlink() == tmp_path / "checkout" / link
    # A run that goes on after its project or its cache moved.
    (launch.cwd / link).unlink()
    (launch.cwd / link).symlink_to("/elsewhere")
    prepare(launch, use_cpu=True)
    assert (launch.cwd / link).readlink() == tmp_path / "checkout" / link


def test_shims_come_before_the_checkout_and_the_users_path_not_at_all(tmp_path: Path) -> None:
    env = plan_checkout(tmp_path, "train.sh", PYTHONPATH="shims").env
    assert env["PYTHONPATH"] == f"shims:{tmp_path}/checkout"
    assert env["VENV_PATH"] == env["VIRTUAL_ENV"] == str(tmp_path / "env")
    assert env["PYTHONPYCACHEPREFIX"].startswith(str(tmp_path / "env"))


def test_the_library_path_is_left_to_train_sh_only_where_cuda_12_needs_it(tmp_path: Path) -> None:
    assert plan_checkout(tmp_path, "train.sh").env["DISABLE_LD_OVERRIDE"] == "1"
    (tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "nvidia" / "nvjitlink").mkdir(parents=True)
    assert "DISABLE_LD_OVERRIDE" not in plan_checkout(tmp_path, "train.sh").env
