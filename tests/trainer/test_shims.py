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
        ("4.8.0", "lycoris", ("lycoris_sync", "skip_torch", "vae_shares")),
        ("4.8.0", "standard", ("skip_torch", "vae_shares")),
        ("4.10.1", "lycoris", ("lycoris_sync", "skip_torch")),
        ("3.3.4", "lycoris", ("lycoris_sync",)),
        ("1.2.5", "lycoris", ("lycoris_sync",)),
    ],
)
def test_several_processes_get_what_they_need(release: str, adapter: str, names: tuple[str, ...]) -> None:
    asked = {"rehearsal_without_cuda": False, "precision": "int8-quanto", "adapter": adapter}
    assert shims_for(release, processes=2, **asked) == ("thread_queue", *names)
    assert shims_for(release, processes=1, **asked) == ("thread_queue",)


def test_nothing_is_imported_early_and_the_next_sitecustomize_runs(tmp_path: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'bitsandbytes' in sys.modules, chained)"
    assert run_python(tmp_path, ("pin_memory", "linear4bit"), code) == "False False True"


def test_no_shims_no_variables(tmp_path: Path) -> None:
    assert write_shims(tmp_path / "shims", ()) == {}
    assert not (tmp_path / "shims").exists()
