import os
import sys
from pathlib import Path

import pytest

from fluxkit.process import run
from fluxkit.trainer.shims import shims_for, write_shims
from tests.compiled import compile_with

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
        ("4.8.0", True, "int8-quanto", ("pin_memory", "thread_queue", "no_tracing")),
        ("4.8.0", False, "int8-quanto", ("thread_queue", "no_tracing")),
        ("4.8.0", False, "nf4-bnb", ("thread_queue", "no_tracing", "linear4bit")),
        ("4.8.0", False, "int5-sdnq", ("thread_queue", "no_tracing", "sdnq_on_gpu")),
        ("4.8.0", False, "uint5-sdnq", ("thread_queue", "no_tracing", "sdnq_on_gpu")),
        ("4.10.1", False, "uint5-sdnq", ("thread_queue", "no_tracing", "sdnq_on_gpu")),
        ("4.10.1", False, "int5-sdnq", ("thread_queue", "no_tracing", "sdnq_on_gpu")),
        ("4.8.0", False, "uint4-sdnq", ("thread_queue", "no_tracing")),
        ("1.2.5", True, "int8-quanto", ("pin_memory", "thread_queue")),
        ("2.2.1", False, "int8-quanto", ("thread_queue",)),
        ("4.10.1", True, "int8-quanto", ("pin_memory", "thread_queue", "no_tracing")),
        ("4.11.0", True, "int8-quanto", ("pin_memory", "thread_queue", "no_tracing")),
        ("3.3.4", False, "nf4-bnb", ("thread_queue", "no_tracing")),  # the float32 output: measured on 4.8.0 alone
        ("4.10.1", False, "nf4-bnb", ("thread_queue", "no_tracing")),
    ],
)
def test_shims_only_where_needed(release: str, rehearsal: bool, precision: str, names: tuple[str, ...]) -> None:
    assert shims_for(release, rehearsal_without_cuda=rehearsal, options={"base_model_precision": precision}) == names


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


def test_who_asks_whether_a_library_is_there_does_not_use_up_its_repair(tmp_path: Path) -> None:
    """transformers and diffusers do, for bitsandbytes, before anything imports it."""
    code = "import importlib.util as u; u.find_spec('bitsandbytes'); "
    code += "import bitsandbytes as b; print(b.nn.Linear4bit().forward(1).dtype)"
    assert run_python(tmp_path, ("linear4bit",), code) == "bf16"


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


FAKE_VAE = """
class Backend:
    def __init__(self): self.buckets = {"1.0": ["mine"]}
    def read_cache(self): return self.buckets
class VAECache:
    def __init__(self): self.metadata_backend = Backend()
    def process_buckets(self):
        buckets = self.metadata_backend.read_cache().copy()
        buckets["1.0"].append("another's")
        return buckets
"""
CACHE = "from {module} import vae; c = vae.VAECache(); print(c.process_buckets(), c.metadata_backend.read_cache())"


@pytest.mark.parametrize("module", ["simpletuner.helpers.caching", "helpers.caching"])
@pytest.mark.parametrize("names", [(), ("vae_shares",)])
def test_caching_latents_leaves_a_process_its_share(tmp_path: Path, module: str, names: tuple[str, ...]) -> None:
    folder = tmp_path / "libraries" / module.replace(".", "/")
    folder.mkdir(parents=True)
    (folder / "vae.py").write_text(FAKE_VAE)
    all_photos = {"1.0": ["mine", "another's"]}
    after = {"1.0": ["mine"]} if names else all_photos
    assert run_python(tmp_path, names, CACHE.format(module=module)) == f"{all_photos} {after}"


FAKE_FACTORY = """
import tracemalloc
class FactoryRegistry:
    def __init__(self):
        try:
            tracemalloc.start()
            self.used = self.memory()
        except RuntimeError:
            self.used = self.memory()
    def memory(self):
        try:
            return "traced", tracemalloc.get_traced_memory()
        except RuntimeError:
            return "resident"
"""
TRACED = (
    "from simpletuner.helpers.data_backend import factory as f; import tracemalloc; used = f.FactoryRegistry().used; "
)


@pytest.mark.parametrize(("names", "told"), [((), "True traced"), (("no_tracing",), "False resident")])
def test_python_keeps_no_record_of_its_memory_while_it_trains(
    tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    folder = tmp_path / "libraries" / "simpletuner" / "helpers" / "data_backend"
    folder.mkdir(parents=True)
    (folder / "factory.py").write_text(FAKE_FACTORY)
    code = TRACED + "print(tracemalloc.is_tracing(), used if isinstance(used, str) else used[0])"
    assert run_python(tmp_path, names, code) == told


def test_a_comparison_can_leave_the_tracing_in(tmp_path: Path) -> None:
    folder = tmp_path / "libraries" / "simpletuner" / "helpers" / "data_backend"
    folder.mkdir(parents=True)
    (folder / "factory.py").write_text(FAKE_FACTORY)
    code = "import os; os.environ['FLUXKIT_TRACING'] = '1'; " + TRACED + "print(tracemalloc.is_tracing())"
    assert run_python(tmp_path, ("no_tracing",), code) == "True"


def test_who_wants_to_trace_still_can(tmp_path: Path) -> None:
    folder = tmp_path / "libraries" / "simpletuner" / "helpers" / "data_backend"
    folder.mkdir(parents=True)
    (folder / "factory.py").write_text(FAKE_FACTORY)
    code = TRACED + "tracemalloc.start(); print(tracemalloc.is_tracing())"
    assert run_python(tmp_path, ("no_tracing",), code) == "True"


def test_what_the_launcher_set_for_itself_does_not_reach_the_training(tmp_path: Path) -> None:
    ask = "import os; print(os.environ.get('SIMPLETUNER_SKIP_TORCH'))"
    # As the command line tool does: set in its own process, inherited by what it starts.
    tool = f"import os, subprocess, sys; os.environ['SIMPLETUNER_SKIP_TORCH'] = '1'; {ask}; sys.stdout.flush()\n"
    tool += f"subprocess.run([sys.executable, '-c', {ask!r}])"
    assert run_python(tmp_path, ("skip_torch",), tool).split() == ["1", "None"]
    assert run_python(tmp_path, (), tool).split() == ["1", "1"]


@pytest.mark.parametrize(
    ("release", "adapter", "names"),
    [
        ("4.8.0", "lycoris", {"lycoris_sync", "skip_torch", "vae_shares"}),
        ("4.8.0", "standard", {"skip_torch", "vae_shares"}),
        ("4.10.1", "lycoris", {"lycoris_sync", "skip_torch"}),
        ("3.3.4", "lycoris", {"lycoris_sync"}),
        ("1.2.5", "lycoris", {"lycoris_sync"}),
    ],
)
def test_several_processes_get_what_they_need(release: str, adapter: str, names: set[str]) -> None:
    options = {"base_model_precision": "int8-quanto", "lora_type": adapter}
    several, one = (
        shims_for(release, rehearsal_without_cuda=False, options=options, processes=count) for count in (2, 1)
    )
    assert set(several) - set(one) == names
    assert set(one) <= {"thread_queue", "no_tracing"}


def test_nothing_is_imported_early_and_the_next_sitecustomize_runs(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'bitsandbytes' in sys.modules, chained)"
    assert run_python(tmp_path, ("pin_memory", "linear4bit"), code) == "False False True"


def test_no_shims_no_variables(tmp_path: Path) -> None:
    assert write_shims(tmp_path / "shims", ()) == {}
    assert not (tmp_path / "shims").exists()


@pytest.mark.slow
def test_the_blocks_that_run_are_compiled_where_they_are(tmp_path: Path) -> None:
    assert compile_with(sys.executable, tmp_path, ("regional_compile",)) == "fluxkit: 3 blocks are compiled 3 3 True"


def test_only_who_asks_for_regional_compilation_gets_its_repair() -> None:
    asked = {"base_model_precision": "no_change", "dynamo_use_regional_compilation": True}
    assert "regional_compile" in shims_for("4.8.0", rehearsal_without_cuda=False, options=asked)
    asked["dynamo_use_regional_compilation"] = False
    assert "regional_compile" not in shims_for("4.8.0", rehearsal_without_cuda=False, options=asked)
