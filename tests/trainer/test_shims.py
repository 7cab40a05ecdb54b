import os
import sys
from pathlib import Path

import pytest

from fluxkit.process import run
from fluxkit.trainer.shims import shims_for, write_shims

FAKE_TORCH = """
class Tensor:
    def pin_memory(self): raise RuntimeError("no CUDA")
    dtype = "float32"
    def to(self, dtype): self.dtype = dtype; return self
class cuda:
    is_available = staticmethod(lambda: {cuda})
bfloat16 = "bf16"
autocast = True
is_autocast_enabled = lambda: autocast
"""
FAKE_BNB = """
import torch
class nn:
    class Linear4bit:
        def forward(self, x): return torch.Tensor()
"""


def run_python(tmp_path: Path, names: tuple[str, ...], code: str, *, cuda: bool = False) -> str:
    libraries = tmp_path / "libraries"
    libraries.mkdir(exist_ok=True)
    (libraries / "torch.py").write_text(FAKE_TORCH.format(cuda=cuda))
    (libraries / "bitsandbytes.py").write_text(FAKE_BNB)
    (libraries / "sitecustomize.py").write_text("import builtins; builtins.chained = True")
    env = write_shims(tmp_path / "shims", names)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(libraries)]))
    done = run([sys.executable, "-c", code], env=env)
    return done.stdout.strip() or done.stderr


@pytest.mark.parametrize(
    ("release", "rehearsal", "precision", "names"),
    [
        ("4.8.0", True, "int8-quanto", ("pin_memory", "thread_queue")),
        ("4.8.0", False, "int8-quanto", ("thread_queue",)),
        ("4.8.0", False, "nf4-bnb", ("thread_queue", "linear4bit")),
        ("1.2.5", True, "int8-quanto", ("pin_memory", "thread_queue")),
        ("4.10.1", True, "int8-quanto", ("pin_memory", "thread_queue")),
        ("4.11.0", True, "int8-quanto", ("pin_memory", "thread_queue")),
        ("3.3.4", False, "nf4-bnb", ("thread_queue",)),  # the float32 output was measured on 4.8.0 alone
        ("4.10.1", False, "nf4-bnb", ("thread_queue",)),
    ],
)
def test_shims_only_where_needed(release: str, rehearsal: bool, precision: str, names: tuple[str, ...]) -> None:
    assert shims_for(release, rehearsal_without_cuda=rehearsal, precision=precision) == names


PIN = "import torch; t = torch.Tensor(); print(t.pin_memory() is t)"


def test_pin_memory_is_the_identity_without_a_gpu(tmp_path: Path) -> None:
    assert run_python(tmp_path, ("pin_memory",), PIN) == "True"


def test_pin_memory_shim_is_still_needed_and_leaves_a_gpu_alone(tmp_path: Path) -> None:
    assert "no CUDA" in run_python(tmp_path, ("pin_memory",), PIN, cuda=True)


@pytest.mark.parametrize(("names", "autocast", "dtype"), [
    (("linear4bit",), True, "bf16"), (("linear4bit",), False, "float32"), ((), True, "float32"),
])  # fmt: skip
def test_linear4bit_returns_bf16_under_autocast_only(
    tmp_path: Path, names: tuple[str, ...], autocast: bool, dtype: str
) -> None:
    code = f"import bitsandbytes as b, torch; torch.autocast = {autocast}; print(b.nn.Linear4bit().forward(1).dtype)"
    assert run_python(tmp_path, names, code) == dtype


FAKE_BUCKETS = """
from multiprocessing import Queue
class args: enable_multiprocessing = {processes}
class StateTracker: get_args = staticmethod(lambda: args)
"""
PUT = """
from {module} import base
lost = 0
for _ in range(50):
    waiting = base.Queue()
    waiting.put("photo")
    lost += waiting.empty()
print("lost" if lost else "there", type(waiting).__module__)
"""


@pytest.mark.parametrize("module", ["simpletuner.helpers.metadata.backends", "helpers.metadata.backends"])
@pytest.mark.parametrize(("names", "processes", "told"), [
    ((), False, "lost multiprocessing.queues"), (("thread_queue",), False, "there queue"),
    (("thread_queue",), True, "lost multiprocessing.queues"),
])  # fmt: skip
def test_what_a_thread_reports_is_there_at_once(
    tmp_path: Path, module: str, names: tuple[str, ...], processes: bool, told: str
) -> None:
    folder = tmp_path / "libraries" / module.replace(".", "/")
    folder.mkdir(parents=True)
    (folder / "base.py").write_text(FAKE_BUCKETS.format(processes=processes))
    assert run_python(tmp_path, names, PUT.format(module=module)) == told


def test_nothing_is_imported_early_and_the_next_sitecustomize_runs(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'bitsandbytes' in sys.modules, chained)"
    assert run_python(tmp_path, ("pin_memory", "linear4bit"), code) == "False False True"


def test_no_shims_no_variables(tmp_path: Path) -> None:
    assert write_shims(tmp_path / "shims", ()) == {}
    assert not (tmp_path / "shims").exists()
