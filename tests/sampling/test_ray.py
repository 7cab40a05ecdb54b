"""The Ray engine on real Ray, on CPUs, with the tiny model: a cluster of two nodes, and one of our own."""

import dataclasses
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fluxkit import process
from fluxkit.errors import UserError
from fluxkit.files import read_json, sha256_file
from fluxkit.sampling import deadlines
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import AdapterWeight, SamplingPlan, plan_jobs
from fluxkit.sampling.ray_cluster import import_ray
from fluxkit.sampling.ray_engine import RayEngine
from fluxkit.sampling.work import Failed, Made, Task
from fluxkit.sampling.worker import Worker
from tests.commands.trainers import wait_until

pytestmark = [
    pytest.mark.slow,
    # Ray's own: it leaves files and sockets to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
STORE = 80 * 2**20
POISON = 7


class PoisonedWorker(Worker):
    """Needs no model, and ends its process at one seed, as a crashing driver would."""

    def load(self, _job: Any) -> None:
        pass

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        from PIL import Image

        for task in tasks:
            if task.job.seed == POISON:
                os.kill(os.getpid(), signal.SIGKILL)
            Image.new("RGB", (16, 16), (task.job.seed, 0, 0)).save(task.path)
            yield Made(task.key, 0)


class StillbornWorker(Worker):
    """Ends its process before it has a model."""

    def load(self, _job: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def once(task: Task) -> bool:
    """Whether this is the first time that it is asked in a run."""
    try:
        task.path.with_name("once").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class SleepyWorker(Worker):
    """The first one that has made an image never makes another."""

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        for outcome in super().make(tasks):
            yield outcome
            if once(tasks[0]):
                time.sleep(3600)


class StoppedWorker(Worker):
    """The same, its process stopped: it can't even be told to end."""

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        for outcome in super().make(tasks):
            yield outcome
            if once(tasks[0]):
                os.kill(os.getpid(), signal.SIGSTOP)


class DreamyWorker(PoisonedWorker):
    """Needs no model, and never comes back from one seed."""

    def make(self, tasks: Sequence[Task]) -> Iterator[Made | Failed]:
        for task in tasks:
            if task.job.seed == POISON:
                time.sleep(3600)
            yield from super().make([task])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two nodes with one CPU each."""
    ray = import_ray()
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import the tests
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=node)
    try:
        started.add_node(**node)
        started.wait_for_nodes()
        yield started.address
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def plan(tiny_flux: Path, lokr_file: Path, tmp_path: Path) -> SamplingPlan:
    jobs = plan_jobs(
        {"a": "ohwx man", "b": "ohwx man in rain"},
        seeds=range(12),
        adapters=("final",),
        width=32,
        height=32,
        num_inference_steps=2,
    )
    return SamplingPlan(tiny_flux, None, {"final": (AdapterWeight(lokr_file),)}, "none", jobs, 2, tmp_path / "samples")


def pictures(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("*.png")}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if ".tmp" in path.name]


def silent(_done: int, _total: int) -> None:
    """No progress."""


def kill_once(engine: RayEngine, after: int) -> tuple[Callable[[int, int], None], list[int]]:
    killed: list[int] = []

    def progress(done: int, _total: int) -> None:
        if done == after:
            killed.append(engine.pids[0])
            os.kill(killed[0], signal.SIGKILL)

    return progress, killed


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the ledger was told of each image."""
    from fluxkit.sampling.ledger import Ledger

    added: Counter[str] = Counter()
    add = Ledger.add

    def count(self: Ledger, key: str, path: Path, facts: dict[str, Any]) -> None:
        added[key] += 1
        add(self, key, path, facts)

    monkeypatch.setattr(Ledger, "add", count)
    return added


def test_a_worker_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    cluster: str, plan: SamplingPlan, tmp_path: Path, added: Counter[str], capfd: pytest.CaptureFixture[str]
) -> None:
    alone = dataclasses.replace(plan, out=tmp_path / "alone")
    sample(alone, on_progress=silent)
    added.clear()
    engine = RayEngine(cluster)
    progress, killed = kill_once(engine, after=5)
    report = sample(plan, on_progress=progress, engine=engine)
    assert killed
    assert (report.made, report.failed) == (24, ())
    assert len(added) == 24
    assert set(added.values()) == {1}, "every image made once"
    assert pictures(plan.out) == pictures(alone.out), "the same bytes as the local engine's"
    assert set(read_json(plan.out / "manifest.json")["images"]) == set(read_json(alone.out / "manifest.json")["images"])
    assert leftovers(plan.out) == []
    assert sample(plan, on_progress=silent, engine=RayEngine(cluster)).skipped == 24
    assert capfd.readouterr().out == "", "Ray keeps quiet: --json promises one document"


def test_a_job_that_kills_its_workers_is_given_up_and_the_others_are_made(cluster: str, plan: SamplingPlan) -> None:
    jobs = tuple(job for job in plan.jobs if job.prompt_name == "a" and job.seed > 2)
    plan = dataclasses.replace(plan, jobs=jobs)
    report = sample(plan, on_progress=silent, engine=RayEngine(cluster, worker_type=PoisonedWorker))
    assert report.made == 8
    assert [one.reason for one in report.failed] == [f"The image of 'a', seed {POISON}, ended its worker 3 times."]
    assert len(pictures(plan.out)) == 8


@pytest.mark.parametrize("worker_type", [SleepyWorker, StoppedWorker])
def test_a_worker_that_hangs_is_replaced_and_its_images_are_made_once(
    cluster: str, plan: SamplingPlan, added: Counter[str], worker_type: type[Worker]
) -> None:
    engine = RayEngine(cluster, worker_type=worker_type, image_timeout=5.0)
    seen: set[int] = set()
    report = sample(plan, on_progress=lambda *_: seen.update(engine.pids), engine=engine)
    assert (report.made, report.failed) == (24, ())
    assert (len(added), set(added.values())) == (24, {1})
    assert len(pictures(plan.out)) == 24
    pids = [str(pid) for pid in seen]
    wait_until(lambda: not alive(pids), "what hung was ended, and keeps no GPU")


def test_a_worker_that_hangs_is_noticed_by_what_the_others_measured(
    cluster: str, plan: SamplingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "LEAST_SECONDS", 5.0)
    report = sample(plan, on_progress=silent, engine=RayEngine(cluster, worker_type=SleepyWorker))
    assert (report.made, report.failed) == (24, ())


def test_a_job_that_hangs_its_workers_is_given_up_and_the_others_are_made(cluster: str, plan: SamplingPlan) -> None:
    jobs = tuple(job for job in plan.jobs if job.prompt_name == "a" and job.seed > 2)
    engine = RayEngine(cluster, worker_type=DreamyWorker, image_timeout=2.0)
    report = sample(dataclasses.replace(plan, jobs=jobs), on_progress=silent, engine=engine)
    assert report.made == 8
    assert [one.reason for one in report.failed] == [f"The image of 'a', seed {POISON}, ended its worker 3 times."]


def test_workers_that_never_load_end_the_run(cluster: str, plan: SamplingPlan) -> None:
    with pytest.raises(UserError, match="3 workers in a row ended before they had loaded the model") as caught:
        sample(plan, on_progress=silent, engine=RayEngine(cluster, worker_type=StillbornWorker))
    assert "memory" in caught.value.fix


def test_a_folder_that_workers_do_not_see_is_named(cluster: str, plan: SamplingPlan, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    handle = os.open(tmp_path / "mine", os.O_RDONLY)
    try:
        # A path that leads elsewhere in every other process, as a disk that is not mounted there does.
        out = Path(f"/proc/self/fd/{handle}/samples")
        with pytest.raises(UserError, match=rf"The worker on \S+ can't see the images' folder {out}\."):
            sample(dataclasses.replace(plan, out=out), on_progress=silent, engine=RayEngine(cluster))
    finally:
        os.close(handle)
    assert leftovers(tmp_path / "mine" / "samples") == []


def test_a_damaged_adapter_is_said_as_the_local_engine_says_it(
    cluster: str, plan: SamplingPlan, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no adapter")
    plan = dataclasses.replace(plan, adapters={"final": (AdapterWeight(broken),)})
    with pytest.raises(UserError, match=r"The adapter .*broken\.safetensors is damaged"):
        sample(plan, on_progress=silent, engine=RayEngine(cluster))


def test_more_workers_than_there_is_room_for(cluster: str, plan: SamplingPlan) -> None:
    with pytest.raises(UserError, match="3 workers were asked for, and the cluster has room for 2: one a CPU core"):
        sample(plan, on_progress=silent, engine=RayEngine(cluster, workers=3))


OWN = """
import os, signal, sys
from pathlib import Path
from fluxkit.errors import InterruptedByUser
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import SamplingPlan, plan_jobs
from fluxkit.sampling.ray_engine import RayEngine
import psutil

base, out, how = sys.argv[1:]
jobs = plan_jobs({"a": "ohwx"}, seeds=range(30), width=16, height=16, num_inference_steps=1)
engine = RayEngine(workers=1)

def listening():
    mine = {psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))}
    inodes = set()
    for pid in mine:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(fd).removeprefix("socket:[").rstrip("]"))
            except OSError:
                pass
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                yield fields[1].rpartition(":")[0]

def progress(done, total):
    if done == 3:
        print("LISTEN", *sorted(set(listening())), flush=True)
        print("WORKERS", *engine.pids, flush=True)
        print("PIDS", *(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        os.kill(os.getpid(), {"interrupt": signal.SIGINT, "kill": signal.SIGKILL}[how])

try:
    sample(SamplingPlan(base, None, {}, "none", jobs, 2, Path(out)), on_progress=progress, engine=engine)
except InterruptedByUser as error:
    print("SAID", error.message)
"""


def own(tiny_flux: Path, out: Path, how: str) -> tuple[process.Completed, dict[str, list[str]]]:
    # The report would go out, with RAY_ADDRESS another cluster be used: neither may have a say.
    env = {**os.environ, "RAY_ADDRESS": "192.0.2.9:6379"}
    done = process.run([sys.executable, "-c", OWN, tiny_flux, out, how], env=env, timeout=600, cwd=Path.cwd())
    said = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    return done, said


def alive(pids: list[str]) -> list[str]:
    def runs(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    return [pid for pid in pids if runs(pid)]


def test_a_ray_of_our_own_is_private_and_ctrl_c_ends_it(tiny_flux: Path, tmp_path: Path) -> None:
    done, said = own(tiny_flux, tmp_path / "out", "interrupt")
    assert said["LISTEN"], done
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert set(said["LISTEN"]) <= loopback, "nobody else can reach it"
    made = len(read_json(tmp_path / "out" / "manifest.json")["images"])
    assert made >= 3
    assert " ".join(said["SAID"]).startswith(f"Interrupted: {made} of 30 images are made"), done
    # A worker may have written one or two more, of which the command had not heard yet.
    assert made <= len(pictures(tmp_path / "out")) <= made + 2
    # What it killed at its end may take a moment to be gone.
    wait_until(lambda: not alive(said["PIDS"]), "nothing that it started is left")
    assert leftovers(tmp_path / "out") == []


def test_a_killed_driver_takes_its_workers_with_it(tiny_flux: Path, tmp_path: Path) -> None:
    done, said = own(tiny_flux, tmp_path / "out", "kill")
    assert done.returncode == -signal.SIGKILL
    assert said["WORKERS"]
    # No GPU stays taken; Ray's two small agents follow within a minute.
    wait_until(lambda: not alive(said["WORKERS"]), "the workers are gone", 120)
