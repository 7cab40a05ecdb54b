from pathlib import Path

from fluxkit.trainer.launch import plan_launch, prepare


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
