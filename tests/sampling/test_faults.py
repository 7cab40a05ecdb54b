"""What goes wrong on a user's machine: the exact words, nothing lost, and the same command completes it."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.errors import FluxkitError, UserError
from fluxkit.files import read_json, sha256_file
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.engines import check_failed, choose_engine
from fluxkit.sampling.ledger import read_entries
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import AdapterWeight, Job, SamplingPlan, plan_jobs
from fluxkit.sampling.worker import LocalEngine, Worker

SIZE: dict[str, Any] = {"width": 32, "height": 32, "num_inference_steps": 1}


class Painter:
    """In a model's place: noise of the job's seed."""

    def images(self, jobs: Sequence[Job], _size: int) -> Iterator[tuple[Job, Image.Image | None]]:
        for job in jobs:
            yield job, Image.frombytes("RGB", (64, 64), random.Random(job.seed).randbytes(64 * 64 * 3))


class PaintingWorker(Worker):
    """Needs no model; writes as the real one does."""

    def _load(self, _model: tuple[str, float]) -> Any:
        return Painter()


def painted() -> LocalEngine:
    return LocalEngine(PaintingWorker)


@pytest.fixture
def plan(tmp_path: Path) -> SamplingPlan:
    jobs = plan_jobs({"plain": "ohwx man"}, seeds=range(24), **SIZE)
    return SamplingPlan("nobody/nothing", None, {}, "none", jobs, 4, tmp_path / "samples")


@pytest.fixture
def expected(plan: SamplingPlan, tmp_path: Path) -> dict[str, str]:
    sample(dataclasses.replace(plan, out=tmp_path / "undisturbed"), on_progress=silent, engine=painted())
    return pictures(tmp_path / "undisturbed")


def silent(_done: int, _total: int) -> None:
    """No progress."""


def pictures(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("*.png") if not path.name.startswith(".")}


def check_kept(folder: Path, expected: dict[str, str]) -> int:
    """What is there is whole, and what is recorded is there; how many are."""
    there = pictures(folder)
    assert there.items() <= expected.items()
    assert {one["file"] for one in read_entries(folder).values()} <= set(there)
    return len(read_entries(folder))


def check_completes(plan: SamplingPlan, expected: dict[str, str], kept: int) -> None:
    report = sample(plan, on_progress=silent, engine=painted())
    assert (report.made, report.skipped) == (len(expected) - kept, kept)
    assert pictures(plan.out) == expected
    assert len(read_json(plan.out / "manifest.json")["images"]) == len(expected)
    assert not [path for path in plan.out.rglob("*") if ".tmp" in path.name], "half-written files are cleared away"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 140 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=140k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip("only root can mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


def test_a_full_disk(plan: SamplingPlan, expected: dict[str, str], small_disk: Path) -> None:
    plan = dataclasses.replace(plan, out=small_disk / "samples")
    with pytest.raises(UserError, match=r"samples/.* can't be written: No space left on device$") as caught:
        sample(plan, on_progress=silent, engine=painted())
    assert caught.value.fix == (
        "Free some disk space or check the folder's permissions, then run the same command again."
    )
    kept = check_kept(plan.out, expected)
    assert 0 < kept < len(expected)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)  # noqa: S607
    check_completes(plan, expected, kept)


def test_a_disk_that_fills_up_at_any_write(
    plan: SamplingPlan, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    budget = 9

    def full(fd: int) -> None:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise OSError(28, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"\.png can't be written: No space left on device$"):
        sample(plan, on_progress=silent, engine=painted())
    assert check_kept(plan.out, expected) == 9, "the one that found the disk full is not there"
    budget = 10**6
    check_completes(plan, expected, 9)


@pytest.mark.parametrize("how", ["deleted", "moved", "unplugged"])
def test_the_folder_is_gone_in_the_middle(
    plan: SamplingPlan, expected: dict[str, str], tmp_path: Path, how: str
) -> None:
    def take_away(done: int, _total: int) -> None:
        if done == 3:
            if how == "deleted":
                while plan.out.exists():  # while the next image is being written
                    shutil.rmtree(plan.out, ignore_errors=True)
            else:
                plan.out.rename(tmp_path / "elsewhere")
            if how == "unplugged":  # the mount point is left
                plan.out.mkdir()

    with pytest.raises(UserError, match="is gone: deleted, moved away, or its disk was unplugged") as caught:
        sample(plan, on_progress=take_away, engine=painted())
    assert str(plan.out) in caught.value.message
    assert caught.value.fix == "Put it back and run the same command again: what is in it is kept."
    if how == "unplugged":
        assert not [path for path in plan.out.iterdir() if path.suffix != ".png"], "no ledger, no page"
    else:
        assert not plan.out.exists(), "not made anew, on whatever disk is there now"
    if how != "deleted":
        shutil.rmtree(plan.out, ignore_errors=True)
        (tmp_path / "elsewhere").rename(plan.out)
        kept = check_kept(plan.out, expected)
        assert kept >= 3
        check_completes(plan, expected, kept)


HOLDER = """
import sys, time
from pathlib import Path
from fluxkit.sampling.ledger import open_ledger
with open_ledger(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_runs_into_one_folder_and_the_first_is_killed(plan: SamplingPlan, expected: dict[str, str]) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(plan.out)], stdout=subprocess.PIPE) as first:
        assert first.stdout
        try:
            assert first.stdout.readline() == b"held\n"
            with pytest.raises(UserError) as caught:
                sample(plan, on_progress=silent, engine=painted())
        finally:
            first.send_signal(signal.SIGKILL)
        first.wait()
    assert caught.value.message == f"Another fluxkit makes images in {plan.out} right now."
    assert caught.value.fix == "Wait for it, or choose another --out folder."
    check_completes(plan, expected, 0)


def test_ray_options_without_ray() -> None:
    for options in ({"workers": 2}, {"address": "auto"}):
        with pytest.raises(UserError) as caught:
            choose_engine("local", **options)  # type: ignore[arg-type]
        assert caught.value.message == "--workers, --ray-address and --image-timeout belong to --engine ray."


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import fluxkit.extras

    monkeypatch.setattr(fluxkit.extras, "_is_there", lambda name: name != "ray")
    with pytest.raises(UserError) as caught:
        choose_engine("ray")
    assert caught.value.message == "--engine ray needs packages that are not installed: ray."
    assert caught.value.fix == "Install them with: python -m pip install -c constraints.txt 'fluxkit[ray]'"


# What needs a model.


@pytest.fixture
def real(tiny_flux: Path, lokr_file: Path, tmp_path: Path) -> SamplingPlan:
    jobs = plan_jobs({"plain": "ohwx man"}, seeds=(1, 2, 3), adapters=("final",), **SIZE)
    return SamplingPlan(tiny_flux, None, {"final": (AdapterWeight(lokr_file),)}, "none", jobs, 3, tmp_path / "samples")


def test_a_picture_that_would_be_black_is_reported_and_the_others_are_made(
    real: SamplingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = FluxSampler._denoise

    def overflows(self: FluxSampler, batch: Sequence[Job]) -> Any:
        latents = denoise(self, batch)
        assert latents is not None
        for row, job in enumerate(batch):
            if job.seed == 2:
                latents[row, 3, 5] = float("nan")
        return latents

    with monkeypatch.context() as patch:
        patch.setattr(FluxSampler, "_denoise", overflows)
        report = sample(real, on_progress=silent)
    assert report.made == 2
    assert [one.reason for one in report.failed] == [
        "The image of 'plain', seed 2 with final at strength 1 came out black (numbers overflowed)."
    ]
    with pytest.raises(UserError) as caught:
        check_failed(report.failed)
    assert caught.value.exit_code == 1
    assert caught.value.message == (
        "1 image could not be made; the others are there. "
        "The image of 'plain', seed 2 with final at strength 1 came out black (numbers overflowed)."
    )
    assert caught.value.fix == (
        "Try a lower --strength or an earlier checkpoint: the training may have diverged. Or --quantize none."
    )
    again = sample(real, on_progress=silent)
    assert (again.made, again.skipped, again.failed) == (1, 2, ()), "a rerun tries that one again"
    check_failed(again.failed)


def test_a_corrupt_adapter(real: SamplingPlan, lokr_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pytorch_lora_weights.safetensors"
    broken.write_bytes(lokr_file.read_bytes()[:-64])
    plan = dataclasses.replace(real, adapters={"final": (AdapterWeight(broken),)})
    with pytest.raises(FluxkitError) as caught:
        sample(plan, on_progress=silent)
    assert caught.value.message.startswith(f"The adapter {broken} is damaged: ")
    assert caught.value.fix == "Copy it again, or use another checkpoint (`fluxkit sample --checkpoint N`)."
    assert pictures(plan.out) == {}


def test_a_base_model_of_another_kind(real: SamplingPlan, tiny_flux: Path, tmp_path: Path) -> None:
    import json

    other = tmp_path / "other"
    shutil.copytree(tiny_flux, other)
    config = json.loads((other / "transformer" / "config.json").read_text())
    (other / "transformer" / "config.json").write_text(json.dumps({**config, "num_single_layers": 3}))
    with pytest.raises(UserError) as caught:
        sample(dataclasses.replace(real, base=other), on_progress=silent)
    assert caught.value.message == (
        f"The base model {other} can't be loaded: "
        "its transformer's files lack 14 of the weights that its config.json names"
    )
    assert caught.value.fix == ("Check [model] base; delete a damaged download and let it be downloaded again.")
