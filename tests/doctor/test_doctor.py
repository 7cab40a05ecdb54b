"""The doctor's judgement on made-up machines; what it finds out on this one is tested as a command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.commands import doctor as command
from fluxkit.commands.doctor import doctor
from fluxkit.console import Output
from fluxkit.doctor import gather
from fluxkit.doctor.checks import findings
from fluxkit.doctor.machine import check_memory, check_programs, supports
from fluxkit.doctor.model import CachedEnvironment, Disk, Facts, Finding, TorchBuild
from fluxkit.doctor.report import report_text
from fluxkit.errors import UserError
from fluxkit.files import cache_dir
from fluxkit.hardware import Gpu, GpuProcess, HostMemory
from fluxkit.project.config import ProjectConfig
from fluxkit.project.load import Project
from fluxkit.trainer.cached import MARKER, environment_for
from fluxkit.trainer.lock import shipped_lock
from fluxkit.trainer.pin import Pin
from fluxkit.trainer.releases import find_release
from tests.projects import start_project

GIB = 2**30
GOLDEN = Path(__file__).parent / "golden"
TORCH_2_11 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
TORCH_2_4 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
RTX_4090 = Gpu("NVIDIA GeForce RTX 4090", 24 * GIB, 23 * GIB, "580.95.05", "13.0", (8, 9))
RTX_5090 = Gpu("NVIDIA GeForce RTX 5090", 32 * GIB, 31 * GIB, "580.95.05", "13.0", (12, 0))
RTX_3060 = Gpu(
    "NVIDIA GeForce RTX 3060",
    12 * GIB,
    9 * GIB,
    "550.120",
    "12.4",
    (8, 6),
    (GpuProcess(4211, "firefox", 2 * GIB),),
)
SAMPLING = {"torch": "2.13.0", "diffusers": "0.42.1", "lycoris-lora": "4.1.3"}


def project(profile: str = "24gb") -> Project:
    config = ProjectConfig.model_validate(
        {"project": {"name": "me", "trigger": "behitek"}, "train": {"profile": profile}}
    )
    return Project(Path("/photos/me"), config, {})


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Facts:
    monkeypatch.setenv("FLUXKIT_CACHE", "/cache/fluxkit")
    lock = shipped_lock(find_release("4.8.0"), "cuda")
    assert lock is not None
    environment = replace(environment_for(lock), root=Path("/cache/fluxkit/envs/simpletuner-4.8.0-cuda"))
    disk = Disk(Path("/"), 1, 500_000_000_000)
    return Facts(
        python="3.12.4",
        gpus=(RTX_4090,),
        memory=HostMemory(64 * GIB, 60 * GIB, 8 * GIB),
        disks={"the trainer": disk, "the model": disk, "the project": disk},
        git="2.47.1",
        uv="uv 0.13.9",
        torches=(TorchBuild("the trainer", "2.11.0", TORCH_2_11, "13.0"),),
        token=True,
        environments=(CachedEnvironment(environment.root, "ready", lock.digest, 6_600_000_000),),
        sampling=SAMPLING,
        project=project(),
        pin=Pin("4.8.0", "cuda"),
        lock=replace(lock, requirements="click==8.1.8 --hash=sha256:00\n", as_of="2026-08-25"),
        in_lock_file={},
        environment=environment,
        trainer_python="3.12.4",
    )


def golden(name: str) -> str:
    return (GOLDEN / name).read_text(encoding="utf-8")


def problems(facts: Facts) -> list[Finding]:
    found = [finding for finding in findings(facts) if finding.level == "problem"]
    assert all(finding.fix for finding in found)
    return found


def test_a_healthy_machine_reads_well_and_has_no_problem(healthy: Facts) -> None:
    found = findings(healthy)
    assert {finding.level for finding in found} == {"ok"}
    assert report_text(found) + "\n" == golden("healthy.txt")


def test_an_unhealthy_machine_reads_well_and_names_every_fix(healthy: Facts) -> None:
    other = CachedEnvironment(Path("/cache/fluxkit/envs/simpletuner-3.3.4-cuda"), "half-built", "", 2_100_000_000)
    assert healthy.environment is not None
    mine = CachedEnvironment(
        healthy.environment.root,
        "damaged",
        "x",
        6_600_000_000,
        tuple(f"torch/{name}.py is missing" for name in ("version", "types", "hub", "amp")),
    )
    full = Disk(Path("/"), 1, 12_000_000_000)
    sick = replace(
        healthy,
        gpus=(RTX_3060,),
        memory=HostMemory(16 * GIB, 9 * GIB, 2 * GIB),
        disks=dict.fromkeys(healthy.disks, full),
        git=None,
        token=False,
        hub=UserError(
            "The Hub does not let this account read it.", fix="Accept the licence, then run `hf auth login`."
        ),
        environments=(other, mine),
        sampling={**SAMPLING, "lycoris-lora": None},
        trainer_python=None,
    )
    assert report_text(findings(sick)) + "\n" == golden("unhealthy.txt")


def test_an_rtx_50_with_an_old_torch_is_a_problem_and_with_a_new_one_is_not(healthy: Facts) -> None:
    old = TorchBuild("the trainer", "2.4.1", TORCH_2_4)
    (problem,) = problems(replace(healthy, gpus=(RTX_5090,), torches=(old,)))
    assert "2.4.1" in problem.message
    assert "12.0" in problem.message
    assert "fluxkit upgrade" in problem.fix
    assert problems(replace(healthy, gpus=(RTX_5090,))) == []


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        (("sm_86",), (8, 9), True),
        (("sm_90",), (8, 9), False),
        (("sm_90",), (12, 0), False),
        (("sm_90", "compute_90"), (12, 0), True),
        (("sm_120a",), (12, 0), True),
        (("compute_120",), (9, 0), False),
    ],
)
def test_machine_code_runs_within_a_major_version_and_ptx_on_what_is_newer(
    archs: tuple[str, ...], capability: tuple[int, int], runs: bool
) -> None:
    assert supports(archs, capability) is runs


def test_a_torch_without_cuda_beside_a_gpu_is_a_problem(healthy: Facts) -> None:
    (problem,) = problems(replace(healthy, torches=(TorchBuild("fluxkit", "2.13.0+cpu", None),)))
    assert "without CUDA" in problem.message


def test_a_driver_older_than_the_cuda_of_torch_is_a_problem(healthy: Facts) -> None:
    (problem,) = problems(replace(healthy, gpus=(replace(RTX_4090, driver="550.120", cuda="12.4"),)))
    assert "newer NVIDIA driver" in problem.fix
    assert problems(replace(healthy, gpus=(replace(RTX_4090, cuda="13.2"),))) == []


def test_a_12_gb_card_with_16_gb_of_ram_needs_the_small_profile_which_fits(healthy: Facts) -> None:
    free = replace(RTX_3060, cuda="13.0", free_bytes=int(11.7 * GIB), processes=())
    small = replace(healthy, gpus=(free,), memory=HostMemory(16 * GIB, 14 * GIB, 0))
    gpu, memory = problems(small)
    assert '"12gb"' in gpu.fix
    assert "swap" in memory.fix
    assert problems(replace(small, project=project("12gb-nf4"))) == []
    (memory,) = problems(replace(small, project=project("12gb")))  # its compiling takes 4 GiB more
    assert 'The profile "12gb" takes about 19 GB' in memory.message
    assert 'or set [train] profile to "12gb-nf4".' in memory.fix


def test_a_profile_that_compiles_needs_a_compiler(healthy: Facts) -> None:
    mine = replace(healthy, project=project("12gb"))
    assert 'A C compiler, for the profile "12gb"' in [one.message for one in check_programs(mine)]
    lacking = replace(mine, missing_compiler=("a C compiler (gcc)", "Python's headers (Python.h)"))
    (found,) = (one for one in check_programs(lacking) if one.level == "problem")
    assert "missing: a C compiler (gcc), Python's headers (Python.h)" in found.message
    assert "build-essential" in found.fix
    assert '"12gb-nf4"' in found.fix
    assert not any("compile" in one.message for one in check_programs(replace(lacking, project=project("24gb"))))


@pytest.mark.parametrize(
    ("ram", "level", "outcome"),
    [(20, "problem", "would end the training"), (23, "warning", "hardly anything for other programs"), (31, "ok", "")],
)
def test_ram_is_judged_as_train_judges_it(healthy: Facts, ram: int, level: str, outcome: str) -> None:
    facts = replace(healthy, memory=HostMemory(ram * GIB, ram * GIB, 0), project=project("24gb"))
    (found,) = check_memory(facts)
    assert found.level == level
    assert outcome in found.message
    assert "Add 0 GB" not in found.fix


def test_memory_held_by_other_programs_is_named(healthy: Facts) -> None:
    busy = replace(RTX_4090, free_bytes=10 * GIB, processes=(GpuProcess(77, "blender", 13 * GIB),))
    (finding,) = (one for one in findings(replace(healthy, gpus=(busy,))) if one.level == "warning")
    assert "blender (process 77, 13.0 GiB)" in finding.message


def test_each_filesystem_is_counted_once(healthy: Facts) -> None:
    disks = {
        "the trainer": Disk(Path("/"), 1, 20_000_000_000),
        "the model": Disk(Path("/big"), 2, 90_000_000_000),
        "the project": Disk(Path("/"), 1, 20_000_000_000),
    }
    assert problems(replace(healthy, disks=disks)) == []
    small = {use: replace(disk, device=1, free=20_000_000_000) for use, disk in disks.items()}
    (problem,) = problems(replace(healthy, disks=small))
    assert "Free 18 GB" in problem.fix
    assert problems(replace(healthy, disks=small, cached_model_bytes=34_000_000_000)) == []


def test_git_is_a_problem_only_where_the_project_comes_from_git(healthy: Facts) -> None:
    assert problems(replace(healthy, git=None)) == []
    (problem,) = problems(replace(healthy, git=None, pin=Pin("4.8.0", "cuda", "git")))
    assert "git is not installed" in problem.message


# What follows looks at this machine.


@pytest.fixture
def real_project(tmp_path: Path) -> Path:
    start_project(tmp_path / "p", profile="12gb")
    return tmp_path / "p"


def test_a_token_is_found_and_never_shown(real_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    command_line = [sys.executable, "-m", "fluxkit", "doctor", "--json", "-C", real_project]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert any("token is set up" in finding["message"] for finding in document["findings"])
    assert "secretsecret" not in done.stdout + done.stderr
    assert done.returncode == (0 if document["ok"] else 1)


def test_it_works_outside_of_a_project(tmp_path: Path) -> None:
    command_line = [sys.executable, "-m", "fluxkit", "doctor", "--offline"]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "Programs" in done.stdout
    assert "Project" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = 99\n", "newer fluxkit"),
        ("[simpletuner]\nversion = ", "can't be read"),
        ('[simpletuner]\nversion = "one"\nsource = "pypi"\n', "no version"),
    ],
)
def test_an_unknown_lock_is_a_problem_with_a_fix(
    real_project: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (real_project / "fluxkit.lock").write_text(text)
    with pytest.raises(UserError):
        doctor(real_project, offline=True, out=Output())
    report = capsys.readouterr().out
    assert said in report


def test_settings_that_cant_be_read_are_a_finding_and_the_machine_is_looked_at(
    real_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (real_project / "fluxkit.toml").write_text("[project]\nname = 3\n")
    with pytest.raises(UserError, match="problem"):
        doctor(real_project, offline=True, out=Output())
    report = capsys.readouterr().out
    assert "✗" in report
    assert "Memory" in report


def test_half_built_and_unreadable_environments_are_listed_with_how_to_remove_them(
    real_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, damaged = (cache_dir() / "envs" / name for name in ("simpletuner-1-cpu-a", "simpletuner-2-cpu-b"))
    half.mkdir(parents=True)
    damaged.mkdir()
    (damaged / MARKER).write_text('{"digest": "b"}')
    monkeypatch.setattr(command, "findings", lambda facts: _keep(facts))
    kept: list[Facts] = []

    def _keep(facts: Facts) -> list[Finding]:
        kept.append(facts)
        return []

    doctor(real_project, offline=True, out=Output(verbosity=-1))
    assert [one.state for one in kept[0].environments] == ["half-built", "damaged"]
    listed = [one for one in findings(kept[0]) if one.group == "Trainers"]
    assert [one.level for one in listed] == ["warning", "warning", "warning"]
    assert f"rm -r {half}" in listed[1].fix


def test_the_files_of_this_projects_trainer_are_looked_at(real_project: Path) -> None:
    lock = shipped_lock(find_release("4.8.0"), "cpu")
    assert lock is not None
    root = environment_for(lock).root
    other = root.with_name("simpletuner-9-cpu-c")
    for folder in (root, other):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        info = next(folder.glob("lib/python3*/site-packages")) / "click-8.0.dist-info"
        info.mkdir()
        (info / "RECORD").write_text("click/core.py,sha256=0,5\n")
        (folder / MARKER).write_text(json.dumps({"digest": lock.digest}))
    toml = real_project / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("[simpletuner]\n", '[simpletuner]\nplatform = "cpu"\n'))
    opened, pin, error = command._open(real_project)
    states = {one.root: one for one in gather.gather(opened, pin, error, offline=True).environments}
    assert states[root].damage == ("click/core.py is missing",)
    assert states[other].state == "ready"
    assert states[other].size == 5


def test_a_gated_model_that_is_refused_is_a_problem(real_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise UserError("The Hub does not let this account read it.", fix="Accept the licence.")

    monkeypatch.setattr(gather, "check_base", refuse)
    found = doctor_findings(real_project)
    (hub,) = (one for one in found if one.message.startswith("The Hub does not"))
    assert (hub.level, hub.fix) == ("problem", "Accept the licence.")


def doctor_findings(folder: Path) -> list[Finding]:
    opened, pin, error = command._open(folder)
    return findings(gather.gather(opened, pin, error))


def test_the_archs_of_a_real_torch_are_asked_in_its_own_interpreter() -> None:
    build = gather.ask_torch("fluxkit", Path(sys.executable))
    assert build.version.startswith("2.")


def test_a_torch_that_does_not_start_is_said_so(tmp_path: Path) -> None:
    assert gather.ask_torch("the trainer", tmp_path / "python").archs is None
