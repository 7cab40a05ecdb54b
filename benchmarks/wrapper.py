"""What fluxkit costs around the trainer, against the same launch by hand: start-up, seconds a step, memory.

    python benchmarks/wrapper.py help                  # `fluxkit --help` against a bare `import click`
    python benchmarks/wrapper.py startup --runs 10     # to the trainer's own first line; a stand-in that prints at once
    python benchmarks/wrapper.py rehearsal --runs 3    # the real SimpleTuner 4.8.0 on the tiny FLUX

Both sides take turns. The launch by hand is what `fluxkit train --dry-run --json` prints: argv, folder, environment and
config. SimpleTuner 4.8.0 (cpu) must be installed (`fluxkit install` in any project with platform = "cpu").
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.trainer.cached import MARKER, environment_for
from fluxkit.trainer.lock import shipped_lock
from fluxkit.trainer.progress import parse_step
from fluxkit.trainer.releases import find_release

RELEASE = "4.8.0"
STAND_IN = f"#!{sys.executable} -IS\nimport os, time\nopen(os.environ['FIRST_LINE'], 'w').write(repr(time.time()))\n"


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["help", "startup", "rehearsal"])
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        {"help": measure_help, "startup": measure_startup, "rehearsal": measure_rehearsal}[asked.what](
            Path(temporary), asked.runs
        )
    print(f"(load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end)")


def measure_help(_: Path, runs: int) -> None:
    """CPU and wall time of `fluxkit --help` as a ratio to a bare `import click`."""
    mine, click = [sys.executable, "-m", "fluxkit", "--help"], [sys.executable, "-c", "import click"]
    pairs = [(_timed(mine), _timed(click)) for _ in range(runs)]
    for place, name in enumerate(("wall", "CPU")):
        ratios = [one[place] / other[place] for one, other in pairs]
        print(f"--help / import click, {name}: {_spread(ratios)} (median, range of {runs})")


def measure_startup(root: Path, runs: int) -> None:
    """Seconds from the command to the trainer's first line."""
    project = _project(root)
    base = root / "base" / "transformer"
    base.mkdir(parents=True)
    (base.parent / "model_index.json").write_text("{}")
    (base / "config.json").write_text('{"num_layers": 1, "num_single_layers": 1}')
    config = (project / "fluxkit.toml").read_text()
    (project / "fluxkit.toml").write_text(config.replace("black-forest-labs/FLUX.1-dev", str(base.parent)))
    first = root / "first-line"
    with (project / "fluxkit.toml").open("a") as handle:
        handle.write(f'\n[env]\nFIRST_LINE = "{first}"\n')
    env = {**os.environ, "FLUXKIT_CACHE": str(_cache_with_stand_in(root))}
    _fluxkit(project, "validate", "-q", env=env)  # photos are measured once, not at each start
    plan = json.loads(_fluxkit(project, "train", "--dry-run", "--json", env=env))
    argv = [sys.executable, "-m", "fluxkit", "train", "-C", str(project), "--fresh", "-q"]
    _prepare(plan)
    rows = []
    for _ in range(runs):
        wrapped = _until_first_line(first, argv, cwd=project, env=env)
        by_hand = _until_first_line(first, plan["argv"], cwd=Path(plan["cwd"]), env=plan["env"])
        rows.append((wrapped[0] - by_hand[0], wrapped[1] - by_hand[1], by_hand[0]))
    print(f"to the first line, fluxkit minus by hand: {_spread([row[0] for row in rows])} s wall")
    print(f"  CPU until its end, fluxkit minus by hand: {_spread([row[1] for row in rows])} s")
    print(f"  by hand alone: {_spread([row[2] for row in rows])} s wall (a stand-in: the real trainer takes longer)")


def measure_rehearsal(root: Path, runs: int) -> None:
    """First line, seconds a step and peak memory of the real trainer, both ways."""
    project = _project(root)
    plan = json.loads(_fluxkit(project, "train", "--rehearse", "--dry-run", "--json", env=dict(os.environ)))
    argv = [sys.executable, "-m", "fluxkit", "train", "-C", str(project), "--rehearse", "-q"]
    rows: dict[str, list[dict[str, float]]] = {"fluxkit": [], "by hand": []}
    for number in range(runs):
        _clear(project)
        wrapped = _watched(argv, cwd=project, env=dict(os.environ), log=lambda: _newest_log(project))
        _clear(project)
        _prepare(plan)
        log = Path(plan["cwd"]) / "by-hand.log"
        by_hand = _watched(plan["argv"], cwd=Path(plan["cwd"]), env=plan["env"], log=lambda path=log: path, write=log)
        rows["fluxkit"].append(wrapped)
        rows["by hand"].append(by_hand)
        print(f"  pair {number}: fluxkit {wrapped} / by hand {by_hand}", flush=True)
    for what, unit in (
        ("first line", "s"),
        ("seconds a step", "s"),
        ("trainer's peak RSS", "MB"),
        ("fluxkit's peak RSS", "MB"),
    ):
        sides = " · ".join(f"{side} {_spread([row[what] for row in rows[side]])}" for side in rows)
        print(f"{what} ({unit}): {sides}")


def _project(root: Path) -> Path:
    project = root / "project"
    make_demo_dataset(project / "dataset", "fxkdemo", "person")
    flags = ["--trigger", "fxkdemo", "--subject", "person", "--dataset", "dataset", "--profile", "24gb", "--yes"]
    _fluxkit(project, "init", "--simpletuner", RELEASE, *flags, env=dict(os.environ))
    (project / "prompts.toml").write_text('[prompts]\nportrait = "{trigger} a portrait"\n')
    config = project / "fluxkit.toml"
    config.write_text(config.read_text().replace("[simpletuner]", '[simpletuner]\nplatform = "cpu"'))
    return project


def _cache_with_stand_in(root: Path) -> Path:
    """A cache folder whose environment is the real one, file by file, but for what is launched."""
    lock = shipped_lock(find_release(RELEASE), "cpu")
    assert lock is not None
    real = environment_for(lock).root
    mine = root / "cache" / "envs" / real.name
    (mine / "bin").mkdir(parents=True)
    for path in real.iterdir():
        if path.name != "bin" and path.name != MARKER:
            (mine / path.name).symlink_to(path)
    for path in (real / "bin").iterdir():
        (mine / "bin" / path.name).symlink_to(path.readlink() if path.is_symlink() else path)
    (mine / "bin" / "simpletuner").unlink()
    (mine / "bin" / "simpletuner").write_text(STAND_IN)
    (mine / "bin" / "simpletuner").chmod(0o755)
    marker = json.loads((real / MARKER).read_text())
    (mine / MARKER).write_text(json.dumps(marker))
    return root / "cache"


def _prepare(plan: dict[str, Any]) -> None:
    for name, text in plan["files"].items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def _clear(project: Path) -> None:
    """As a first run finds it, each time: no latents, no captions, no runs."""
    for path in (project / "runs", project / "cache" / "vae", project / "cache" / "text"):
        shutil.rmtree(path, ignore_errors=True)
    for path in project.glob("dataset/aspect_ratio_*"):
        path.unlink()


def _fluxkit(project: Path, verb: str, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fluxkit", verb, "-C", project, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _timed(argv: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of a program and all its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, cpu


def _until_first_line(first: Path, argv: Sequence[str], *, cwd: Path, env: dict[str, str]) -> tuple[float, float]:
    first.unlink(missing_ok=True)
    started = time.time()
    _, cpu = _timed(argv, cwd=cwd, env=env)
    return float(first.read_text()) - started, cpu


def _newest_log(project: Path) -> Path | None:
    return max(project.glob("runs/*/logs/trainer.log"), default=None)


def _watched(
    argv: Sequence[str], *, cwd: Path, env: dict[str, str], log: Callable[[], Path | None], write: Path | None = None
) -> dict[str, float]:
    """Run to the end; look at the log and at the memory of the process and of its children meanwhile."""
    output = write.open("wb") if write else None
    started = time.perf_counter()
    child = subprocess.Popen(argv, cwd=cwd, env=env, stdout=output or subprocess.DEVNULL, stderr=subprocess.STDOUT)
    peaks = {"trainer": 0.0, "fluxkit": 0.0}
    done = threading.Event()
    meter = threading.Thread(target=_meter, args=(child.pid, peaks, done, write is None))
    meter.start()
    first, steps, seen = 0.0, {}, 0
    while True:
        ended = child.poll() is not None
        path = log()
        text = path.read_bytes()[seen:] if path and path.exists() else b""
        now = time.perf_counter() - started
        if text and not first:
            first = now
        # Whole lines only; a bar ends in a carriage return.
        whole = text.replace(b"\r", b"\n").rpartition(b"\n")[0]
        seen += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            step = parse_step(line)
            if step and step.step:
                steps.setdefault(step.step, now)
        if ended:
            break
        time.sleep(0.01)
    done.set()
    meter.join()
    assert child.returncode == 0, f"{argv}: exit code {child.returncode}"
    times = [steps[number] for number in sorted(steps)]
    pace = statistics.median(after - before for before, after in itertools.pairwise(times))
    found = {"first line": first, "seconds a step": pace, "trainer's peak RSS": peaks["trainer"]}
    return {name: round(value, 2) for name, value in (found | {"fluxkit's peak RSS": peaks["fluxkit"]}).items()}


def _meter(pid: int, peaks: dict[str, float], done: threading.Event, wrapped: bool) -> None:
    """Peak resident memory, in MB, of the first process, and of all others together."""
    while not done.wait(0.1):
        try:
            top = psutil.Process(pid)
            own = top.memory_info().rss / 1e6
            others = sum(_rss(child) for child in top.children(recursive=True))
        except psutil.Error:
            continue
        mine, theirs = (own, others) if wrapped else (0.0, own + others)
        peaks["fluxkit"], peaks["trainer"] = max(peaks["fluxkit"], mine), max(peaks["trainer"], theirs)


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.Error:
        return 0.0


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
