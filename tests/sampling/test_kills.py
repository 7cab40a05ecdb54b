"""kill -9 at random moments: a rerun completes the folder, with the bytes of a run that nobody disturbed.

`FLUXKIT_KILLS=100 pytest -m slow tests/sampling/test_kills.py` kills a hundred times; docs/faults.md has the record.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkit.files import read_json, sha256_file
from fluxkit.sampling.ledger import read_entries

KILLS = int(os.environ.get("FLUXKIT_KILLS", "10"))
JOBS = 200

# One process that has imported the libraries, and a fork of it for each run: a run then takes two seconds, not ten.
# It has one thread when it forks: torch starts its own with the first multiplication, in the child.
NURSERY = f"""
import os, sys, time, traceback
import diffusers, torch, transformers
from pathlib import Path
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.plan import SamplingPlan, plan_jobs

torch.set_num_threads(1)
jobs = plan_jobs({{"a": "ohwx man", "b": "rain"}}, seeds=range({JOBS} // 2), width=16, height=16, num_inference_steps=1)
print("ready", flush=True)
for line in sys.stdin:
    plan = SamplingPlan(sys.argv[1], None, {{}}, "none", jobs, 4, Path(line.strip()))
    child = os.fork()
    if not child:
        try:
            times = []
            report = sample(plan, on_progress=lambda done, total: times.append(time.monotonic()))
            print("made", report.made, report.skipped, times[-1] - times[0] if times else 0, flush=True)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    sys.stdin.readline()  # until then an ended child keeps its number: the kill can't hit another process
    _, status = os.waitpid(child, 0)
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """Runs of `sample`, one at a time, each in a process of its own."""

    def __init__(self, base: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        assert self._line() == ["ready"]

    def _line(self) -> list[str]:
        assert self._process.stdout
        return self._process.stdout.readline().split()

    def run(self, folder: Path, *, kill_after: float | None = None, once_making: bool = False) -> tuple[int, list[str]]:
        """The exit code and what the run said, if it came to that.

        Args:
            folder: where it makes its images.
            kill_after: seconds until it is killed.
            once_making: whether they count from its first image on.
        """
        assert self._process.stdin
        print(folder, file=self._process.stdin, flush=True)
        child = int(self._line()[0])
        if kill_after is not None:
            while once_making and not (folder / "manifest.journal").exists() and not ended(child):
                time.sleep(0.002)
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        print("go on", file=self._process.stdin, flush=True)
        said: list[str] = []
        while (line := self._line())[0] != "ended":
            said = line
        return int(line[1]), said

    def close(self) -> None:
        """End it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def ended(child: int) -> bool:
    return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def nursery(tiny_flux: Path) -> Iterator[Nursery]:
    started = Nursery(tiny_flux)
    yield started
    started.close()


def pictures(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.glob("*.png") if not path.name.startswith(".")}


def check_whole(folder: Path, expected: dict[str, str], keys: set[str]) -> None:
    """A finished folder: every image once, of the right bytes, and nothing else."""
    assert pictures(folder) == expected
    images: dict[str, Any] = read_json(folder / "manifest.json")["images"]
    assert set(images) == keys
    assert {one["file"]: one["sha256"] for one in images.values()} == expected
    assert sorted(path.name for path in folder.iterdir() if not path.name.endswith(".png")) == [
        ".lock",
        ".thumbs",
        "index.html",
        "manifest.json",
    ]
    assert not list((folder / ".thumbs").glob(".*"))


@pytest.mark.slow
def test_kill_9_at_random_moments(nursery: Nursery, tmp_path: Path) -> None:
    began = time.monotonic()
    code, said = nursery.run(tmp_path / "undisturbed")
    whole_run, making = time.monotonic() - began, float(said[3])
    assert (code, said[:3]) == (0, ["made", str(JOBS), "0"])
    expected = pictures(tmp_path / "undisturbed")
    assert len(expected) == JOBS
    keys = set(read_json(tmp_path / "undisturbed" / "manifest.json")["images"])
    check_whole(tmp_path / "undisturbed", expected, keys)

    chance = random.Random(20261124)
    kills, folders, moments = 0, [tmp_path / "0"], []
    while kills < KILLS:
        # At any moment of a run, loading and tidying up included; every second time while it makes images.
        once_making = kills % 2 == 1
        moment = chance.uniform(0, making / 5 if once_making else whole_run)
        code, said = nursery.run(folders[-1], kill_after=moment, once_making=once_making)
        assert code in (0, -signal.SIGKILL), said
        if code == 0:  # it was faster than the kill
            check_whole(folders[-1], expected, keys)
            folders.append(tmp_path / str(len(folders)))
            continue
        kills += 1
        there = pictures(folders[-1]) if folders[-1].is_dir() else {}
        assert there.items() <= expected.items(), "none half-written, even before the rerun"
        recorded = read_entries(folders[-1])
        assert {one["file"] for one in recorded.values()} <= set(there), "nothing recorded that is not there"
        assert len(there) - len(recorded) <= 1 + 8, "at most what was being written is not recorded"
        moments.append(len(recorded))
    code, _ = nursery.run(folders[-1])
    assert code == 0
    check_whole(folders[-1], expected, keys)
    print(json.dumps({"kills": kills, "folders": len(folders), "images recorded at each kill": moments}))
