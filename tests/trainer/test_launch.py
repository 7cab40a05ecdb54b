from pathlib import Path

import pytest

from fluxkit.trainer.launch import RunPlan, accelerate_config, plan_launch, prepare
from fluxkit.trainer.sources.checkout import open_checkout
from fluxkit.trainer.topology import Topology


def plan(tmp_path: Path, topology: Topology = Topology(use_cpu=True), **inherited: str) -> RunPlan:  # noqa: B008
    return plan_launch(
        environment_bin=tmp_path / "env" / "bin",
        run_dir=tmp_path / "run",
        extra_env={"PYTHONPATH": "shims"},
        offline=True,
        topology=topology,
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
    prepare(launch)
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
    prepare(launch)
    assert (launch.cwd / link).readlink() == tmp_path / "checkout" / link
    # A run that goes on after its project or its cache moved.
    (launch.cwd / link).unlink()
    (launch.cwd / link).symlink_to("/elsewhere")
    prepare(launch)
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


def settings(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_gpus_of_one_machine_meet_on_their_own_port(tmp_path: Path) -> None:
    launch = plan(tmp_path, Topology(gpus=2, port=23456))
    assert (launch.env["TRAINING_NUM_PROCESSES"], launch.env["TRAINING_NUM_MACHINES"]) == ("2", "1")
    written = settings(launch.files["config/accelerate.yaml"])
    assert written["distributed_type"] == "'MULTI_GPU'"
    assert (written["num_processes"], written["main_process_port"]) == ("2", "23456")
    assert "main_process_ip" not in written
    assert "ACCELERATE_USE_CPU" not in launch.env


def test_processes_count_over_all_machines_as_accelerate_wants(tmp_path: Path) -> None:
    launch = plan(tmp_path, Topology(gpus=4, machines=2, rank=1, address="10.0.0.1", port=29500))
    written = settings(launch.files["config/accelerate.yaml"])
    assert (written["num_processes"], written["num_machines"], written["machine_rank"]) == ("8", "2", "1")
    assert (written["main_process_ip"], written["main_process_port"]) == ("'10.0.0.1'", "29500")
    assert (launch.env["TRAINING_NUM_PROCESSES"], launch.env["TRAINING_NUM_MACHINES"]) == ("8", "2")


def test_cpu_processes_are_started_as_gpus_are_and_told_apart_by_a_variable(tmp_path: Path) -> None:
    # With MULTI_CPU accelerate starts one process without MPI, which believes itself to be the whole training.
    launch = plan(tmp_path, Topology(gpus=2, port=23456, use_cpu=True))
    written = settings(launch.files["config/accelerate.yaml"])
    assert (written["distributed_type"], written["use_cpu"]) == ("'MULTI_GPU'", "false")
    assert launch.env["ACCELERATE_USE_CPU"] == "true"
    assert launch.env["GLOO_SOCKET_IFNAME"] == "lo"
    assert settings(accelerate_config(Topology(use_cpu=True)))["use_cpu"] == "true"


def test_a_machine_that_joins_reads_the_runs_config_and_writes_only_its_own(tmp_path: Path) -> None:
    (tmp_path / "run" / "config").mkdir(parents=True)
    (tmp_path / "run" / "config" / "config.json").write_text("{}")
    launch = plan_launch(
        environment_bin=tmp_path / "env" / "bin",
        run_dir=tmp_path / "run" / "machine-1",
        extra_env={},
        offline=True,
        topology=Topology(gpus=1, machines=2, rank=1, address="a", port=29500),
        shared_config=tmp_path / "run" / "config",
        inherited={"PATH": "/usr/bin"},
    )
    prepare(launch)
    assert (launch.cwd / "config" / "config.json").read_text() == "{}"
    assert "machine_rank: 1" in Path(launch.env["ACCELERATE_CONFIG_PATH"]).read_text()
    assert [path.name for path in (tmp_path / "run" / "config").iterdir()] == ["config.json"]


def test_a_launcher_that_ignores_the_config_path_is_given_it_as_an_argument(tmp_path: Path) -> None:
    env = plan_launch(
        environment_bin=tmp_path / "bin",
        run_dir=tmp_path / "a run",
        extra_env={},
        offline=True,
        ignores_config_path=True,
        inherited={},
    ).env
    assert env["ACCELERATE_EXTRA_ARGS"] == "--config_file=config/accelerate.yaml"  # it is split at spaces


def test_only_secrets_are_masked(tmp_path: Path) -> None:
    shown = plan(tmp_path, HF_TOKEN="hf_secret").public_env()
    assert (shown["HF_TOKEN"], shown["TOKENIZERS_PARALLELISM"]) == ("***", "false")
