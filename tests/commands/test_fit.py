"""`fluxkit fit`, and `train`'s look before the launch: made-up machines, and a stand-in for the trainer."""

import json
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fluxkit.commands import assemble as shared
from fluxkit.commands import fit as command
from fluxkit.commands import fitplan, measuring, preflight
from fluxkit.commands import train as training
from fluxkit.commands.validate import dataset_rules
from fluxkit.console import Output
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.model import DatasetReport
from fluxkit.errors import TrainerError, UserError
from fluxkit.fitting.model import DiskSpace, Fit
from fluxkit.hardware import Gpu, HostMemory
from fluxkit.project.config import ProjectConfig
from fluxkit.trainer.environment import Environment, environment_for
from fluxkit.trainer.lock import Lock
from tests.projects import start_project

GIB = 2**30
Card = Callable[[float], None]
Trainer = Callable[[str], None]
# What the probe would write for three steps at 1024.
STEPS = """
import json, os
config = json.loads(open("config/config.json").read())
backends = json.loads(open("config/multidatabackend.json").read())
def record(phase, start, end, gib, **more):
    line = {"phase": phase, "start": start, "end": end, "allocated": gib * 2**30, "reserved": (gib + 1) * 2**30, **more}
    open(os.environ["FLUXKIT_MEASURE_FILE"], "a").write(json.dumps(line) + "\\n")
record("text_encoding", 0, 1, 9.5)
record("load", 1, 2, 12)
for step in range(3):
    record("training_step", 10 + 2 * step, 12 + 2 * step, 13, edge=1024, batch=1)
record("validation_image", 20, 21, VALIDATION)
"""
# And the adapter that the trainer leaves.
WEIGHTS = """
import numpy, pathlib
from safetensors.numpy import save_file
pathlib.Path(config["--output_dir"]).mkdir(parents=True, exist_ok=True)
save_file(
    {"lycoris_m0.lokr_w1": numpy.full((1, 1), VALUE, numpy.float32)},
    pathlib.Path(config["--output_dir"]) / "pytorch_lora_weights.safetensors",
)
"""
FINISHED = 'record("finish", 21, 22, 13)\n'


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    make_demo_dataset(folder, "behitek", "man", count=5)
    return folder


@pytest.fixture(scope="module")
def report(photos: Path) -> DatasetReport:
    """The checked photos: looked at once, as no test changes them."""
    rules = dataset_rules(ProjectConfig.model_validate({"project": {"name": "me", "trigger": "behitek"}}))
    return check_dataset(photos, rules)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path, report: DatasetReport) -> Path:
    root = tmp_path / "project"
    start_project(root)
    base = tmp_path / "flux"
    (base / "transformer").mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    (base / "transformer" / "config.json").write_text('{"num_layers": 19, "num_single_layers": 38}')
    text = (root / "fluxkit.toml").read_text().replace("black-forest-labs/FLUX.1-dev", str(base))
    (root / "fluxkit.toml").write_text(text.replace('path = "dataset"', f'path = "{photos}"'))
    monkeypatch.setattr(shared, "is_ready", lambda _: True)
    monkeypatch.setattr(shared, "find_damage", lambda _: [])
    for module in (command, training):
        monkeypatch.setattr(module, "check_project", lambda *_, **__: report)
    return root


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    """Give the machine a GPU of so many GiB, 64 GiB of RAM and a disk with 500 GB free, whatever this one has left."""

    def make(gib: float) -> None:
        found = [Gpu("card", int(gib * GIB), int(gib * GIB), "580")] if gib else []
        for module in (fitplan, command):
            monkeypatch.setattr(module, "gpus", lambda **_: found)
        monkeypatch.setattr(fitplan, "host_memory", lambda: HostMemory(64 * GIB, 60 * GIB, 0))
        monkeypatch.setattr(fitplan, "container_limit", lambda: None)
        monkeypatch.setattr(fitplan, "disk_space", lambda folder: DiskSpace(folder, 1, 500 * 10**9))

    return make


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Give the trainer's environment a `simpletuner` that runs this Python code in the run's folder."""

    def make(code: str) -> None:
        launcher = tmp_path / "env" / "bin" / "simpletuner"
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text(f"#!{sys.executable}\n{code}\n")
        launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)

        def located(lock: Lock) -> Environment:
            return replace(environment_for(lock), root=tmp_path / "env", python=tmp_path / "env" / "bin" / "python")

        monkeypatch.setattr(shared, "environment_for", located)

    return make


def fit(project: Path, *option: str, measure: bool = False, as_json: bool = False) -> Fit:
    return command.fit(project, measure=measure, option=option, out=Output(as_json=as_json))


def train(project: Path, **options: object) -> None:
    defaults = {"rehearse": False, "dry_run": False, "fresh": False, "option": (), "out": Output()}
    training.train(project, **{**defaults, **options})  # type: ignore[arg-type]


def test_train_refuses_what_is_known_not_to_fit_before_a_run_is_made(
    project: Path, card: Card, trainer: Trainer
) -> None:
    card(16)
    trainer("raise SystemExit('must not start')")
    with pytest.raises(UserError, match="does not fit this machine") as caught:
        train(project)
    assert "1. Set validation_disable = true" in caught.value.message
    assert '2. Set profile = "16gb"' in caught.value.message
    assert "3. Set resolutions = [512]" in caught.value.message
    assert "--no-fit-check" in caught.value.fix
    assert not list(project.glob("runs/*"))


def compiling(project: Path, monkeypatch: pytest.MonkeyPatch, *missing: str, release: str = "4.8.0") -> None:
    text = (project / "fluxkit.toml").read_text()
    text = text.replace('profile = "24gb"', 'profile = "12gb"').replace('version = "4.8.0"', f'version = "{release}"')
    (project / "fluxkit.toml").write_text(text)
    monkeypatch.setattr(preflight, "missing_for_compiling", lambda _: missing)


def test_what_compiles_is_not_started_without_a_compiler(
    project: Path, card: Card, trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(12)
    trainer("raise SystemExit('must not start')")
    compiling(project, monkeypatch, "a C compiler (gcc)", "Python's headers (Python.h)")
    with pytest.raises(UserError, match=r"compiler \(gcc\) and Python's headers .* are not on this") as caught:
        train(project, no_fit_check=True)
    assert "build-essential" in caught.value.fix
    assert '"12gb-nf4"' in caught.value.fix
    assert not list(project.glob("runs/*"))
    train(project, dry_run=True)  # it shows what would be started
    with pytest.raises(UserError, match="compiles the model's blocks"):
        fit(project, measure=True)


def test_with_a_compiler_it_starts_and_without_compiling_none_is_needed(
    project: Path,
    card: Card,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card(12)
    trainer("raise SystemExit('it started')")
    compiling(project, monkeypatch)
    with pytest.raises(TrainerError):
        train(project)
    assert "blocks are compiled" in "".join(capsys.readouterr())
    compiling(project, monkeypatch, "a C compiler (gcc)", release="4.0.6")  # which gets 12gb-nf4
    with pytest.raises(TrainerError):
        train(project, fresh=True)
    assert "blocks are compiled" not in "".join(capsys.readouterr())


def test_no_fit_check_starts_it_all_the_same(project: Path, card: Card, trainer: Trainer) -> None:
    card(16)
    trainer("raise SystemExit('it started')")
    with pytest.raises(TrainerError):
        train(project, no_fit_check=True)
    assert list(project.glob("runs/*"))


def test_a_dry_run_is_not_refused(project: Path, card: Card, trainer: Trainer) -> None:
    card(16)
    trainer("")
    train(project, dry_run=True)


def test_the_suggested_option_is_taken_and_fits(project: Path, card: Card, trainer: Trainer) -> None:
    card(16)
    trainer("raise SystemExit('it started')")
    with pytest.raises(TrainerError):
        train(project, option=("validation_disable=true",))


def test_settings_that_nobody_measured_start_with_the_reason_said(
    project: Path, card: Card, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    card(16)
    trainer("raise SystemExit('it started')")
    with pytest.raises(TrainerError):
        train(project, option=("ramtorch=true",), out=Output(verbosity=1))
    assert "was not measured with these settings of yours: ramtorch = True" in capsys.readouterr().out


def test_a_base_of_another_size_is_not_judged_by_fluxs_figures(project: Path, card: Card) -> None:
    card(8)
    config = project.parent / "flux" / "transformer" / "config.json"
    config.write_text('{"num_layers": 2, "num_single_layers": 2}')
    assert fit(project).shortfalls == ()


def test_fit_prints_one_json_document(project: Path, card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    card(24)
    fit(project, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is True
    assert document["gpu"]["known"] == "measured profile"
    assert document["gpu"]["needs_gib"] == 16.19
    # 10,000 steps and a checkpoint each 1,000: five are kept, one more is written, and the final weights.
    assert document["disk"][0] == {"use": "the project", "what": "7 checkpoints", "bytes": 7 * 8 * 54_705_408}


def test_harmless_options_change_nothing(project: Path, card: Card) -> None:
    card(24)
    plain = fit(project)
    assert fit(project, "report_to=none", "lr_scheduler=constant").gpu == plain.gpu


def test_measuring_without_a_gpu_is_refused_in_clear_words(project: Path, card: Card) -> None:
    card(0)
    with pytest.raises(UserError, match="no NVIDIA GPU here to measure on") as caught:
        fit(project, measure=True)
    assert "without --measure" in caught.value.fix


def test_a_measured_run_is_kept_and_believed(project: Path, card: Card, trainer: Trainer) -> None:
    card(24)
    trainer(
        STEPS.replace("VALIDATION", "14")
        + WEIGHTS.replace("VALUE", "1")
        + "assert config['--max_train_steps'] == 3\n"
        + "assert [b['resolution'] for b in backends if b.get('resolution')] == [1024]\n"
    )
    found = fit(project, "ramtorch=true", measure=True)
    assert found.gpu.surety == "measured here"
    assert found.gpu.gib == 14.75
    assert not list(project.glob("runs/*"))
    again = fit(project, "ramtorch=true")
    assert again.gpu == found.gpu
    assert fit(project).gpu.surety == "measured profile"  # other settings
    card(14.5)
    trainer("raise SystemExit('it started')")
    with pytest.raises(TrainerError):  # another card: nothing is known of these settings on it
        train(project, option=("ramtorch=true",))


def test_running_out_of_memory_is_knowledge_too(project: Path, card: Card, trainer: Trainer) -> None:
    card(24)
    out = "print('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB'); raise SystemExit(1)"
    trainer(STEPS.replace("VALIDATION", "23") + out)
    with pytest.raises(UserError, match="does not fit"):
        fit(project, measure=True)
    with pytest.raises(UserError, match=r"ran out of memory on this card \(validation image\)"):
        train(project)


def test_another_failure_is_not_taken_for_a_measurement(project: Path, card: Card, trainer: Trainer) -> None:
    card(24)
    trainer("print('ValueError: no images'); raise SystemExit(1)")
    with pytest.raises(TrainerError, match="ValueError: no images") as caught:
        fit(project, measure=True)
    assert Path(caught.value.fix.removeprefix("Its log is ").removesuffix(".")).is_file()
    assert fit(project).gpu.surety == "measured profile"


def test_a_run_that_takes_too_long_is_ended(project: Path, card: Card, trainer: Trainer) -> None:
    card(24)
    trainer("import time\nprint('up', flush=True)\ntime.sleep(60)")
    opened = shared.open_project(project)
    run = measuring.measure_project(opened, project / "cache" / "fit", steps=3, seconds=1.0, out=Output())
    assert (run.ok, run.reason) == (False, "it took longer than 1 s")


def measured(project: Path, turn: Path | None = None) -> measuring.MeasuredRun:
    opened, out = shared.open_project(project), Output()
    return measuring.measure_project(opened, project / "cache" / "fit", steps=3, seconds=600, turn=turn, out=out)


def test_a_run_counts_once_its_weights_are_written_however_long_the_trainer_takes_to_end(
    project: Path, card: Card, trainer: Trainer
) -> None:
    card(24)
    stop = "open(os.environ['FLUXKIT_MEASURE_TURN'] + '.stop', 'w')\nimport time; time.sleep(600)"
    trainer(STEPS.replace("VALIDATION", "14") + WEIGHTS.replace("VALUE", "1") + FINISHED + stop)
    run = measured(project, project / "turn")
    assert (run.ok, run.reason) == (True, "measured whole; its end was cut short: the time for all was over")
    assert run.measurement.phases["validation_image"].allocated == 14


@pytest.mark.parametrize(("more", "reason"), [
    (FINISHED, "can't be read"),
    (WEIGHTS.replace("VALUE", "0") + FINISHED, "nothing was learned"),
    (WEIGHTS.replace("VALUE", "numpy.nan") + FINISHED, "not numbers"),
    (WEIGHTS.replace("VALUE", "1") + "raise SystemExit(7)", "exit code 7"),
])  # fmt: skip
def test_a_run_without_its_proof_is_no_measurement(
    project: Path, card: Card, trainer: Trainer, more: str, reason: str
) -> None:
    card(24)
    trainer(STEPS.replace("VALIDATION", "14") + more)
    run = measured(project)
    assert not run.ok
    assert reason in run.reason


def test_an_image_that_ran_out_of_memory_counts_although_the_trainer_goes_on(
    project: Path, card: Card, trainer: Trainer
) -> None:
    """SimpleTuner logs what goes wrong with a validation image, and ends with exit code 0."""
    card(24)
    said = "print('Validation run failed at step 3: CUDA out of memory. Tried to allocate 2 GiB')\n"
    trainer(STEPS.replace("VALIDATION", "14") + said + WEIGHTS.replace("VALUE", "1") + FINISHED)
    with pytest.raises(UserError, match="does not fit"):
        fit(project, measure=True)
    with pytest.raises(UserError, match=r"ran out of memory on this card \(validation image\)"):
        train(project)
