"""sdnq on the GPU, weight by weight: against a stand-in for the library here, against the real trainer below."""

import os
import re
import sys
from pathlib import Path

import pytest

from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.process import run
from fluxkit.trainer.shims import write_shims
from tests.real import fluxkit

# A quantized weight is what it was, times 1 + `off`; the library says where it was asked to work.
FAKE_SDNQ = """
import torch
class Quantized(torch.nn.Parameter):
    sdnq_dequantizer = True
    def dequantize(self): return self.data.as_subclass(torch.Tensor)
def sdnq_training_post_load_quant(model, weights_dtype="int8", quantization_device=None, return_device=None):
    print(weights_dtype, quantization_device, return_device)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = Quantized(module.weight.data * (1 + {off}))
    return model
"""
QUANTIZE = """
import torch
torch.cuda.is_available = lambda: {cuda}
from sdnq.training import sdnq_training_post_load_quant as quantize
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ModuleDict({{"big": torch.nn.Linear(64, 64)}}))
quantize(model, weights_dtype="uint5", quantization_device={device!r}, return_device={device!r})
"""


def quantize(
    tmp_path: Path, *, off: object = 0.05, cuda: bool = True, device: str = "cpu", shims: tuple[str, ...]
) -> str:
    package = tmp_path / "libraries" / "sdnq"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "training.py").write_text(FAKE_SDNQ.format(off=off))
    env = write_shims(tmp_path / "shims", shims)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(package.parent)]))
    done = run([sys.executable, "-c", QUANTIZE.format(cuda=cuda, device=device)], env=env)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("cuda", "device", "where"), [
    (True, "cpu", "uint5 cuda cuda"), (False, "cpu", "uint5 cpu cpu"), (True, "cuda", "uint5 cuda cuda"),
])  # fmt: skip
def test_a_model_on_the_cpu_is_quantized_on_the_gpu_where_there_is_one(
    tmp_path: Path, cuda: bool, device: str, where: str
) -> None:
    said = quantize(tmp_path, cuda=cuda, device=device, shims=("sdnq_on_gpu",))
    assert said.splitlines() == [where, "fluxkit: sdnq's 1.big is off by 5.0% of its norm"]


def test_without_the_shim_it_is_quantized_where_the_trainer_says(tmp_path: Path) -> None:
    assert quantize(tmp_path, shims=()).splitlines() == ["uint5 cpu cpu"]


@pytest.mark.parametrize("off", ["18.0", "-1.5", "float('nan')"])
def test_weights_that_came_out_as_others_are_no_base_for_an_adapter(tmp_path: Path, off: str) -> None:
    said = quantize(tmp_path, off=off, shims=("sdnq_on_gpu",))
    assert "RuntimeError: sdnq's 1.big is off by" in said
    assert "nf4-bnb" in said


# The trainer's own method, on a stand-in for the rest of it.
ORDER = """
import os
from contextlib import nullcontext
from types import SimpleNamespace as Any
from simpletuner.helpers.training.trainer import Trainer
order = []
config = Any(base_model_precision="uint5-sdnq", disable_accelerator=False, is_quantized=True, weight_dtype=None,
             base_model_default_dtype="bf16", controlnet=False, is_quanto=False, is_torchao=False, is_fp8_native=False,
             is_transformerengine=False, is_sdnq=True)
weights = Any(to=lambda device, dtype: order.append(f"{config.quantize_via} moves it to {device}"))
model = Any(MODEL_TYPE=Any(value="transformer"), model=weights, text_encoders=None, post_quantization_setup=lambda: 0,
            get_trained_component=lambda base_model: weights, set_prepared_model=lambda *a, **k: 0)
def quantise(**options):
    order.append("quantized")
    return weights, None, None, None
there = Any(config=config, model=model, ema_model=None, quantise_model=quantise,
            accelerator=Any(device="the GPU", local_main_process_first=nullcontext))
for config.quantize_via in ("accelerator", "cpu"):
    Trainer.init_precision(there)
os.write(1, ("ORDER " + ", ".join(order)).encode())  # what Python prints, the trainer colours
"""


@pytest.mark.slow
@pytest.mark.parametrize("release", ["4.8.0", "4.10.1"])
def test_the_real_trainer_moves_the_whole_model_first(tmp_path: Path, release: str) -> None:
    """Fails when the shim is no longer needed."""
    toml = f'[project]\nname = "p"\ntrigger = "fxkdemo"\n[simpletuner]\nversion = "{release}"\nplatform = "cpu"\n'
    (tmp_path / "fluxkit.toml").write_text(toml)
    environment = fluxkit("install", "-C", tmp_path).strip().splitlines()[-1]
    done = run([f"{environment}/bin/python", "-c", ORDER], cwd=tmp_path, env={"CUDA_VISIBLE_DEVICES": ""})
    said = "accelerator moves it to the GPU, quantized, cpu moves it to cpu, quantized"
    assert done.stdout.rpartition("ORDER ")[2].startswith(said), done.stderr[-2000:]


@pytest.mark.slow
def test_12gb_rehearses_with_its_own_5_bits(tmp_path: Path) -> None:
    """The real trainer and the real sdnq, on a CPU: quantized by the repair, trained, and proven."""
    make_demo_dataset(tmp_path / "dataset", "fxkdemo", "person", count=5)
    flags = ["--trigger", "fxkdemo", "--subject", "person", "--dataset", "dataset", "--profile", "12gb", "--yes"]
    fluxkit("init", tmp_path, *flags)
    config = tmp_path / "fluxkit.toml"
    config.write_text(config.read_text().replace("[simpletuner]\n", '[simpletuner]\nplatform = "cpu"\n'))
    fluxkit("install", "-C", tmp_path)
    assert "Trained: 4 steps, 30 modules" in fluxkit("train", "--rehearse", "-C", tmp_path)
    (log,) = tmp_path.glob("runs/*/logs/trainer.log")
    (off,) = re.findall(r"fluxkit: sdnq's \S+ is off by ([\d.]+)% of its norm", log.read_text(errors="replace"))
    assert 1 < float(off) < 8  # of 5 bits; 8 bits are off by less than 1
