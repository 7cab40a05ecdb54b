"""The probe in a process with stand-ins for the trainer's libraries, and what is made of its records."""

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fluxkit.process import run
from fluxkit.trainer.launch import RunPlan
from fluxkit.trainer.measure import Measurement, Peak, read_records, with_probe
from fluxkit.trainer.shims import _SOURCES, write_shims

GIB = 2**30
SHIM = _SOURCES / "measure.py"
# A GPU that holds what it is told to, and refuses what is over its cap.
TORCH = """
from types import SimpleNamespace
class cuda:
    total, cap, held, peak, began = 80 * 2**30, 80 * 2**30, 0, 0, False
    is_initialized = classmethod(lambda cls: cls.began)
    current_device = staticmethod(lambda: 0)
    synchronize = empty_cache = staticmethod(lambda: None)
    get_device_properties = classmethod(lambda cls, device: SimpleNamespace(total_memory=cls.total))
    max_memory_allocated = classmethod(lambda cls: cls.peak)
    max_memory_reserved = classmethod(lambda cls: cls.peak + 2**30)
    @classmethod
    def set_per_process_memory_fraction(cls, fraction): cls.cap = fraction * cls.total
    @classmethod
    def reset_peak_memory_stats(cls): cls.peak = cls.held
    @classmethod
    def hold(cls, gib):
        cls.began = True
        if gib * 2**30 > cls.cap: raise RuntimeError("CUDA out of memory")
        cls.held = gib * 2**30
        cls.peak = max(cls.peak, cls.held)
"""
LIBRARIES = {
    "torch/__init__.py": TORCH,
    "torch/nn/__init__.py": "",
    "torch/nn/functional.py": "def mse_loss(a, b=None): return 0.5\n",
    "torch/optim/__init__.py": "",
    "torch/optim/optimizer.py": "hooks = []\ndef register_optimizer_step_post_hook(hook): hooks.append(hook)\n",
    "transformers/__init__.py": "",
    "transformers/models/__init__.py": "",
    "transformers/models/t5/__init__.py": "",
    "transformers/models/t5/modeling_t5.py": "class T5EncoderModel:\n    def forward(self, ids): return ids\n",
    "diffusers/__init__.py": "",
    "diffusers/models/__init__.py": "",
    "diffusers/models/modeling_utils.py": (
        "class ModelMixin:\n    @classmethod\n    def from_pretrained(cls, path, **more): return cls, path, more\n"
    ),
    "diffusers/models/autoencoders/__init__.py": "",
    "diffusers/models/autoencoders/autoencoder_kl.py": "class AutoencoderKL:\n    def encode(self, x): return x\n",
    "diffusers/pipelines/__init__.py": "",
    "diffusers/pipelines/pipeline_utils.py": (
        "class DiffusionPipeline:\n    def progress_bar(self, iterable=None, total=None): return total\n"
    ),
    "accelerate/__init__.py": "",
    "accelerate/accelerator.py": (
        "class Accelerator:\n    def accumulate(self, *models): return models\n"
        "    def save_state(self, folder): return folder\n"
        "    def end_training(self): return 'ended'\n"
    ),
}
TRAINER = """
import torch
from torch.nn import functional as F
from torch.optim import optimizer
from transformers.models.t5.modeling_t5 import T5EncoderModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from accelerate.accelerator import Accelerator
from types import SimpleNamespace
class FluxTransformer2DModel(ModelMixin): pass
cuda, accelerator = torch.cuda, Accelerator()

def step(gib, edge, batch=1):
    assert accelerator.accumulate("model") == ("model",)
    cuda.hold(gib)
    assert F.mse_loss(SimpleNamespace(ndim=4, shape=(batch, 16, edge // 8, edge // 8))) == 0.5
    for hook in optimizer.hooks: hook(None, (), {})
    cuda.hold(5)

cuda.hold(1)
assert T5EncoderModel().forward(3) == 3
cuda.hold(9)
ModelMixin.from_pretrained("vae")
assert AutoencoderKL().encode(4) == 4
cuda.hold(6); cuda.hold(1)
loaded = FluxTransformer2DModel.from_pretrained("flux", dtype="bf16")
assert loaded == (FluxTransformer2DModel, "flux", {"dtype": "bf16"})
cuda.hold(7); cuda.hold(5)
for edge, gib in ((1024, 8), (512, 7), (1024, 8), (512, 6), (1024, 8)): step(gib, edge)
accelerator.save_state("out")
assert DiffusionPipeline().progress_bar(total=2) == 2
cuda.hold(LAST)
"""


def launch(tmp_path: Path, code: str, **env: str) -> tuple[Measurement, int]:
    libraries = tmp_path / "libraries"
    for name, text in LIBRARIES.items():
        path = libraries / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    variables = write_shims(tmp_path / "shims", ("measure",))
    variables["PYTHONPATH"] += os.pathsep + str(libraries)
    records = tmp_path / "measured.jsonl"
    done = run([sys.executable, "-c", code], env={**variables, "FLUXKIT_MEASURE_FILE": str(records), **env})
    assert "AssertionError" not in done.stderr, done.stderr
    return read_records(records), done.returncode


def test_each_phase_gets_its_own_peak_and_each_size_of_picture_its_steps(tmp_path: Path) -> None:
    measured, code = launch(tmp_path, TRAINER.replace("LAST", "9.5"))
    assert code == 0
    allocated = {name: peak.allocated for name, peak in measured.phases.items()}
    assert allocated == {
        "text_encoding": 9, "vae_caching": 9, "load": 7, "training_step": 8, "training_step_1024": 8,
        "training_step_512": 7, "validation_image": 9.5, "checkpoint": 5, "between_steps": 8,
    }  # fmt: skip
    assert measured.phases["load"].reserved == 8
    assert (measured.allocated_gib, measured.reserved_gib) == (9.5, 10.5)
    assert (measured.steps, measured.batch_size, measured.ended_in) == (5, 1, "validation_image")
    assert set(measured.seconds_per_step) == {512, 1024}


def test_a_cap_is_the_allocators_and_what_runs_out_says_in_which_phase(tmp_path: Path) -> None:
    measured, code = launch(tmp_path, TRAINER.replace("LAST", "12"), FLUXKIT_MEASURE_CAP_GIB="11")
    assert code == 1
    assert measured.ended_in == "validation_image"
    assert measured.steps == 5
    measured, code = launch(tmp_path / "smaller", TRAINER.replace("LAST", "1"), FLUXKIT_MEASURE_CAP_GIB="7.5")
    assert code == 1
    assert (measured.ended_in, measured.steps) == ("text_encoding", 0)


def test_only_the_first_of_several_processes_measures(tmp_path: Path) -> None:
    measured, code = launch(tmp_path, TRAINER.replace("LAST", "1"), LOCAL_RANK="1")
    assert (code, measured) == (0, Measurement())


def test_without_a_gpu_there_are_steps_and_host_memory_but_no_peaks(tmp_path: Path) -> None:
    code = TRAINER.replace("cls.began = True", "").replace("cuda.hold(LAST)", "").replace("\ncuda.hold", "\n# ")
    for number in ("gib", "5"):
        code = code.replace(f"    cuda.hold({number})\n", "")
    code = code.replace("cuda.hold(6); cuda.hold(1)", "").replace("cuda.hold(7); cuda.hold(5)", "")
    measured, status = launch(tmp_path, code)
    assert (status, measured.steps) == (0, 5)
    assert set(measured.phases.values()) == {Peak(None, None)}
    assert measured.allocated_gib is None
    assert measured.anonymous_gib is not None


def record(phase: str, start: float, end: float, **more: object) -> str:
    return (
        json.dumps({"phase": phase, "start": start})
        + "\n"
        + json.dumps({"phase": phase, "start": start, "end": end, **more})
    )


def test_the_pace_leaves_out_validation_checkpoints_and_the_first_step_of_a_size(tmp_path: Path) -> None:
    size = {"edge": 1024, "batch": 2}
    lines = [
        record("training_step", 0, 100, **size),  # nothing before it to count from
        record("between_steps", 100, 101),
        record("training_step", 101, 110, **size),  # 10 s: the first that counts, left out
        record("training_step", 110, 112, **size),  # 2 s
        record("validation_image", 112, 500),
        record("training_step", 500, 503, **size),  # after pictures: not counted
        record("training_step", 503, 507, **size),  # 4 s
        record("training_step", 507, 510, **size),  # 3 s
        '{"phase": "training_step", "sta',  # killed here
    ]
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(lines))
    measured = read_records(path)
    assert measured.seconds_per_step == {1024: 3.0}
    assert (measured.steps, measured.batch_size) == (6, 2)


def test_no_records_is_an_empty_measurement(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none") == Measurement()


@pytest.mark.parametrize(
    ("env", "names", "behind"),
    [
        ({}, "measure", []),
        ({"FLUXKIT_SHIMS": "linear4bit", "PYTHONPATH": "/old"}, "linear4bit,measure", []),
        ({"FLUXKIT_SHIMS": "linear4bit", "PYTHONPATH": "/old:/checkout"}, "linear4bit,measure", ["/checkout"]),
        ({"PYTHONPATH": "/checkout"}, "measure", ["/checkout"]),
    ],
)
def test_a_measured_launch_is_the_same_launch_with_the_probe(
    tmp_path: Path, env: dict[str, str], names: str, behind: list[str]
) -> None:
    plan = RunPlan(("simpletuner", "train"), tmp_path, {"A": "1", **env})
    measured = with_probe(plan, tmp_path / "probe", tmp_path / "records", cap_gib=11.0)
    assert (measured.argv, measured.cwd, measured.env["A"]) == (plan.argv, plan.cwd, "1")
    assert measured.env["FLUXKIT_SHIMS"] == names
    assert measured.env["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "probe"), *behind]
    assert measured.env["FLUXKIT_MEASURE_CAP_GIB"] == "11.0"
    for name in names.split(","):
        assert (tmp_path / "probe" / f"fluxkit_shim_{name}.py").is_file()


def probe() -> Any:
    spec = importlib.util.spec_from_file_location("measure_shim", SHIM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_end_is_told_apart_and_each_image_is_known_as_soon_as_the_next_one_begins(tmp_path: Path) -> None:
    pictures = "\nDiffusionPipeline().progress_bar(total=2)\ncuda.hold(5)\n"
    code = TRAINER.replace("LAST", "9.5") + pictures
    measured, _ = launch(tmp_path, code + "import os; os._exit(9)")  # killed while it makes the second one
    assert not measured.finished
    assert measured.phases["validation_image"].allocated == 9.5
    measured, _ = launch(tmp_path / "whole", code + "assert accelerator.end_training() == 'ended'\ncuda.hold(20)")
    assert measured.finished
    assert measured.phases["validation_image"].allocated == 9.5
    measured, _ = launch(tmp_path / "cut", code + "accelerator.end_training(); import os; os._exit(9)")
    assert measured.finished


def asks(tmp_path: Path, code: str) -> list[str]:
    """What a run asked for that was given every word, and said."""
    for part in ("encode", "load", "train"):
        (tmp_path / f"run.{part}.go").touch()
    measured, status = launch(tmp_path, code, FLUXKIT_MEASURE_TURN=str(tmp_path / "run"))
    assert status == 0
    assert measured.steps == 5
    names = [path for path in tmp_path.glob("run.*") if path.suffix != ".go"]
    return [path.suffix[1:] for path in sorted(names, key=lambda path: path.stat().st_mtime_ns)]


def test_a_run_by_turns_asks_before_each_part_and_says_when_the_card_is_free(tmp_path: Path) -> None:
    code = TRAINER.replace("LAST", "9.5")
    assert asks(tmp_path, code + "accelerator.end_training()") == ["encode", "load", "train", "done"]
    (tmp_path / "unfinished").mkdir()
    assert asks(tmp_path / "unfinished", code) == ["encode", "load", "train"]


def test_without_the_word_nothing_goes_on(tmp_path: Path) -> None:
    turn = probe().Turn(str(tmp_path / "run"))
    waiting = threading.Thread(target=turn.ask, args=("train",), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert (tmp_path / "run.train").exists()
    (tmp_path / "run.train.go").touch()
    waiting.join(10)
    assert not waiting.is_alive()
    turn.ask("train")  # every later step finds its turn taken
