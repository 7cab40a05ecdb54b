"""How long `fluxkit sample` takes from the command to the first step, and what it takes of the GPU: the real command.

    python benchmarks/start.py --out FOLDER --work FOLDER [--budget SECONDS] [--cases a,b] [--small-t5] [--tiny]

Makes a full-size FLUX.1-dev with random weights (33 GB on disk), an adapter of 342 modules and a project, then runs
`fluxkit sample` in one process after the other. Each case is a line of FOLDER/start.jsonl, written as it ends; what the
command said is in it. Before the model is made, the command runs once on the tiny one. `--tiny` takes the tiny model
and 64×64 pixels throughout: the same code, on a CPU too.

`to_first_step_s` is from the command until the first step begins, `first_step_done_s` until the GPU has done it:
compiling, and building kernels, lies between the two.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.start_cases import CASES, Case

HERE = Path(__file__).resolve().parent
PROMPT = "a portrait of a man in a garden at dusk, 85 mm, soft light"
MAKING_S = 96  # the rehearsal (46), and a full-size model (50): an H100, libraries not in the file cache

PROJECT = """[project]
name = "start"
trigger = "behitek"
subject = "man"
[dataset]
path = "dataset"
[model]
base = "{base}"
"""


class Bench:
    """The run: its folder, its clock, its results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.work, self.tiny = options.out.resolve(), options.work.resolve(), options.tiny
        self.small_t5 = options.small_t5
        self.deadline = time.monotonic() + options.budget
        self.base, self.adapter = self.work / "model/base", self.work / "model/pytorch_lora_weights.safetensors"
        self.project = self.work / "project"
        self.gpu = False
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.env = {**os.environ, "FLUXKIT_CACHE": str(self.work / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        # Compilers keep what they made where the first start finds nothing.
        self.env["TRITON_CACHE_DIR"] = str(self.work / "triton")
        self.env["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), self.env.get("PYTHONPATH", "")]).strip(os.pathsep)

    def record(self, **facts: Any) -> None:
        """One line, on the screen and in the file."""
        print(json.dumps(facts), flush=True)
        with (self.out / "start.jsonl").open("a") as handle:
            handle.write(json.dumps(facts) + "\n")

    def rehearse(self) -> None:
        """The same command on the tiny model: what can't start is known before 24 GB are written.

        Raises:
            SystemExit: it did not come as far as loading a model.
        """
        small = Bench(
            argparse.Namespace(out=self.out, work=self.work / "rehearsal", tiny=True, small_t5=False, budget=90)
        )
        small.prepare()
        facts = small.run(Case("rehearsal", 80, 20))
        if facts["rc"] != 0 and "load transformer" not in [span[0] for span in facts.get("spans", ())]:
            raise SystemExit("fluxkit sample can't start here; see above.")

    def prepare(self) -> None:
        """The model, the adapter and the project."""
        began = time.monotonic()
        given = [*(["--tiny"] if self.tiny else []), *(["--small-t5"] if self.small_t5 else [])]
        if not self.adapter.is_file() or not (self.base / "vae").is_dir():
            script = [str(HERE / "full_flux.py"), str(self.work / "model"), *given]
            subprocess.run([sys.executable, *script], env=self.env, check=True)
        self.project.mkdir(exist_ok=True)
        (self.project / "fluxkit.toml").write_text(PROJECT.format(base=self.base))
        facts = machine()
        self.gpu = facts["gpu"] != "none"
        self.record(case="machine", made_s=time.monotonic() - began, tiny=self.tiny, small_t5=self.small_t5, **facts)

    def attempt(self, case: Case) -> None:
        """Run a case; whatever happens, the next one starts."""
        left = self.deadline - time.monotonic()
        if left < 10:
            return self.record(case=case.name, skipped="no time left")
        try:
            self.run(case)
        except Exception as error:
            self.record(case=case.name, failed=f"{type(error).__name__}: {error}"[:600])
        return print(f"# {left - self.deadline + time.monotonic():.1f} s of {case.expected_s} expected", flush=True)

    def run(self, case: Case) -> dict[str, Any]:
        """Start the command, watch it, note what came out."""
        left = self.deadline - time.monotonic()
        how = empty_file_cache([self.base, self.work / "cache"]) if case.cold else "as it was"
        result = self.work / f"{case.name}.json"
        result.unlink(missing_ok=True)
        shutil.rmtree(self.work / "out" / case.name, ignore_errors=True)  # of an earlier run: they would be skipped
        size = ["--size", "64x64", "--num-inference-steps", "2"] if self.tiny else ["--size", "1024x1024"]
        common = ["--adapter", str(self.adapter), "--out", str(self.work / "out" / case.name), *size]
        args = list(case.args)
        if "auto" in args and not self.gpu:  # which would be int8 through quanto
            args[args.index("auto")] = "fp8"
        prompt = [] if "--prompt" in case.args else ["--prompt", PROMPT]
        command = [sys.executable, "-m", "fluxkit", "sample", "-C", str(self.project), *common, *prompt, *args]
        hooks = os.pathsep.join([str(HERE / "start_hooks"), self.env["PYTHONPATH"]])
        env = {**self.env, **case.env, "PYTHONPATH": hooks, "FLUXKIT_START_RESULT": str(result)}
        with GpuWatch() as watch:
            env["FLUXKIT_START_BEGAN"] = repr(time.time())
            process = subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
            )
            try:
                said, _ = process.communicate(timeout=min(case.limit_s, left))
            except subprocess.TimeoutExpired:
                said = end(process) + "\nended: its time was up"
        facts = {"case": case.name, "rc": process.returncode, "file_cache": how, "gpu_gib": watch.peak_bytes / 2**30}
        with suppress(OSError, ValueError):
            facts |= summary(json.loads(result.read_text()))
        self.record(**facts, said=said[-1500:].splitlines())
        return facts


def end(process: "subprocess.Popen[str]") -> str:
    """Let it write down what it saw, then end it and all that it started; returns what it said."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=5)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def summary(seen: dict[str, Any]) -> dict[str, Any]:
    """What the hooks saw: when the first step was done, when the first picture was there, and the parts of it."""
    spans = [(label, round(began, 3), round(ended, 3)) for label, began, ended in seen.pop("spans")]
    ends: dict[str, float] = {}
    for label, _, ended in spans:
        ends.setdefault(label, ended)
    first = next((began for label, began, _ in spans if label == "first step"), None)
    decoded = min((began for label, began, _ in spans if label == "decode"), default=None)
    steps = seen.pop("steps_to_decode", 0)
    return {
        # Of the first batch: from its first step's end, so that building kernels and compiling don't count.
        "s_step": round((decoded - ends["first step"]) / (steps - 1), 4) if decoded and steps > 1 else None,
        "to_first_step_s": first,
        "first_step_done_s": ends.get("first step"),
        "first_picture_s": ends.get("write"),
        "end_s": round(seen.pop("end"), 3),
        "loaded_text_encoders": "text encoders" in ends,
        **{key: round(value, 3) if isinstance(value, float) else value for key, value in seen.items()},
        "spans": sorted(spans, key=lambda span: span[1])[:40],
    }


class GpuWatch:
    """The most memory in use on the first GPU that CUDA_VISIBLE_DEVICES names, by NVML; 0 without one."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "GpuWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        import pynvml

        from fluxkit.hardware import training_card

        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(training_card())
            while not self._stop.wait(0.05):
                self.peak_bytes = max(self.peak_bytes, int(pynvml.nvmlDeviceGetMemoryInfo(handle).used))
        except pynvml.NVMLError:
            return


def empty_file_cache(folders: list[Path]) -> str:
    """Make reads come from the disk again; returns how."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return "empty: drop_caches, libraries too"
    except OSError:
        pass
    for path in (one for folder in folders for one in folder.rglob("*") if one.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return "empty of models: posix_fadvise, libraries stay"


def machine() -> dict[str, Any]:
    """What this runs on."""
    from importlib.metadata import version

    from fluxkit.hardware import gpus, host_memory

    found = gpus(details=True)
    names = {"gpu": found[0].name, "driver": found[0].driver} if found else {"gpu": "none"}
    libraries = {name: version(name) for name in ("torch", "diffusers", "transformers", "safetensors")}
    return {
        **names,
        "ram_gib": round(host_memory().total / 2**30),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        **libraries,
    }


def main() -> None:
    """Run the cases in the order of their worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="A folder on a disk with 60 GB free.")
    parser.add_argument("--budget", type=int, default=280)
    parser.add_argument("--cases", default="")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--small-t5", action="store_true", help="One layer of 24: quicker, but not for `first`.")
    options = parser.parse_args()
    wanted = options.cases.split(",") if options.cases else []
    unknown = set(wanted) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    chosen = [case for case in CASES if not wanted or case.name in wanted]
    planned = sum(case.expected_s for case in chosen) + MAKING_S
    print(f"# planned: {planned} s by an H100's or H200's figures, of {options.budget}", flush=True)
    bench = Bench(options)
    if not options.tiny:
        bench.rehearse()
    bench.prepare()
    for case in chosen:
        bench.attempt(case)


if __name__ == "__main__":
    main()
