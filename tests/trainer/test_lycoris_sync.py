"""The shim that lets several processes train one LyCORIS adapter: two real processes, torch and accelerate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fluxkit.trainer.shims import write_shims
from fluxkit.trainer.topology import free_port

# As SimpleTuner does it: the adapter hooks into a frozen model, hangs on the accelerator, and is in no model that
# accelerate is given. Each process starts from other weights and sees other data.
TRAINING = """
import json, os, sys, time
from pathlib import Path
import torch
from accelerate import Accelerator
accelerator = Accelerator(gradient_accumulation_steps=2)
rank = accelerator.process_index
torch.manual_seed(rank)
base = torch.nn.Linear(3, 3).requires_grad_(False)
adapter = torch.nn.Linear(3, 3)
unused = torch.nn.Parameter(torch.ones(1))
adapter.register_parameter("unused", unused)
first = [float(w) for w in adapter.weight.flatten()]
plain = base.forward
base.forward = lambda x: plain(x) * 0 + adapter(x)
accelerator._lycoris_wrapped_network = adapter
optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
model, optimizer = accelerator.prepare(base, optimizer)
for step in range(6):
    with accelerator.accumulate(model):
        x = torch.arange(3.0) + 1 + step + 10 * rank
        loss = model(x / 40).square().sum()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
last = [float(w) for w in adapter.weight.flatten()]
Path(sys.argv[1], str(rank)).write_text(json.dumps({"first": first, "last": last, "world": accelerator.num_processes}))
# gloo aborts a process whose peer closes its connections first, in its threads or while it takes the group apart: both
# say here that they are done, then end without taking anything apart.
accelerator.wait_for_everyone()
folder = Path(sys.argv[1]).parent
(folder / f"done-{rank}").touch()
until = time.monotonic() + 60
while len(list(folder.glob("done-*"))) < 2 and time.monotonic() < until:
    time.sleep(0.01)
sys.stdout.flush()
os._exit(0)
"""


def train(
    tmp_path: Path, names: tuple[str, ...]
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, list[float]]]]:
    script = tmp_path / "training.py"
    script.write_text(TRAINING)
    answers = tmp_path / "answers"
    answers.mkdir()
    env = {**os.environ, **write_shims(tmp_path / "shims", names), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    env["GLOO_SOCKET_IFNAME"] = "lo"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    done = subprocess.run(
        [sys.executable, *launcher, script, answers], env=env, capture_output=True, text=True, check=False
    )
    return done, [json.loads((answers / name).read_text()) for name in sorted(p.name for p in answers.iterdir())]


def alone(first: list[float]) -> list[float]:
    """What one process makes of all the data from the first process's weights (its bias is found the same way)."""
    import torch

    torch.manual_seed(0)
    torch.nn.Linear(3, 3)
    adapter = torch.nn.Linear(3, 3)
    assert adapter.weight.flatten().tolist() == pytest.approx(first)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for step in range(6):
        for rank in (0, 1):
            x = torch.arange(3.0) + 1 + step + 10 * rank
            (adapter(x / 40).square().sum() / 4).backward()  # 2 processes × 2 batches a step
        if step % 2:
            optimizer.step()
            optimizer.zero_grad()
    weights: list[float] = adapter.weight.flatten().tolist()
    return weights


@pytest.mark.slow
def test_two_processes_train_one_adapter_as_one_process_would_on_all_the_data(tmp_path: Path) -> None:
    done, (one, other) = train(tmp_path, ("lycoris_sync",))
    assert done.returncode == 0, done.stderr[-2000:]
    assert one["world"] == 2
    assert one["first"] != other["first"]
    assert one["last"] == other["last"] == pytest.approx(alone(one["first"]), abs=1e-6)
    assert "2 processes average 3 gradients" in done.stdout


@pytest.mark.slow
def test_the_shim_is_still_needed(tmp_path: Path) -> None:
    # On a CPU accelerate goes as far as DistributedDataParallel, which refuses; on a GPU each would train its own.
    done, answers = train(tmp_path, ())
    assert answers == []
    assert "doesn't have any parameter that requires a gradient" in done.stderr
