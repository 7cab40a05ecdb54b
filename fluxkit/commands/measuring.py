"""A short run of the real trainer on a project's own settings, measured: what `fit --measure` and the benchmarks share.

It is launched as `train` launches, in a folder below the project's cache, so that no run of the user's is touched; the
VAE and text caches are the project's, and what it encodes is there for `train`.
"""

import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fluxkit.commands.assemble import assemble, has_cuda, whole_environment
from fluxkit.commands.launching import plan_run
from fluxkit.console import Output
from fluxkit.hardware import MemoryWatch, training_card
from fluxkit.hub import check_base
from fluxkit.process import end_children
from fluxkit.project.load import Project
from fluxkit.rendering.profiles import ProfileSettings
from fluxkit.rendering.render import write_rendered
from fluxkit.rendering.settings import Rehearsal
from fluxkit.trainer import launch
from fluxkit.trainer.environment import Environment
from fluxkit.trainer.measure import GIB, Measurement, read_records, with_probe
from fluxkit.trainer.progress import ProgressReader, strip_ansi
from fluxkit.trainer.topology import Topology

# The picture's size decides the memory of a validation image, not how often it is denoised.
_SHORT = ("validation_num_inference_steps=2", "disable_benchmark=true", "lr_warmup_steps=0")
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|out of memory", re.IGNORECASE)
_ERROR = re.compile(r"^\s*(?:[\w.]*(?:Error|Exception)\b.*|Killed)")


@dataclass(frozen=True)
class MeasuredRun:
    """A measured run and how it ended.

    Args:
        measurement: what it took.
        ok: whether it did every step.
        out_of_memory: whether it ended for lack of GPU memory.
        reason: why it failed, in the trainer's words; empty where it did not.
        log: the trainer's whole output.
    """

    measurement: Measurement
    ok: bool
    out_of_memory: bool
    reason: str
    log: Path


def measure_project(
    project: Project,
    folder: Path,
    *,
    steps: int,
    option: Sequence[str] = (),
    cap_gib: float | None = None,
    rehearsal: Rehearsal | None = None,
    seconds: float | None = None,
    candidate: ProfileSettings | None = None,
    environment: Environment | None = None,
    out: Output,
) -> MeasuredRun:
    """Train a few steps, make a validation image and a checkpoint, and say what they took.

    Args:
        project: the project; its dataset is taken as checked.
        folder: what the run writes goes here; emptied first. The log and the records stay, checkpoints don't.
        steps: optimizer steps.
        option: `-o` pairs.
        cap_gib: what PyTorch's allocator may take, in GiB.
        rehearsal: the tiny model instead of the project's base.
        seconds: after which it is ended.
        candidate: settings to measure instead of the profile's.
        environment: the trainer's; the project's own by default.
        out: where to say what it is doing.

    Raises:
        UserError: the settings, the base model or the environment are not in order.
        InterruptedByUser: Ctrl-C.
    """
    shutil.rmtree(folder, ignore_errors=True)
    short = _shortened(project, steps)
    if rehearsal:
        rehearsal = replace(rehearsal, steps=steps, checkpoint_every=steps)
    local = check_base(str(rehearsal.base)) if rehearsal else check_base(*_base(project))
    assembled = assemble(
        short,
        config_dir=folder / "config",
        output_dir=folder / "output",
        cli_options=(*option, *(pair for pair in _SHORT if not _named(pair, option))),
        rehearsal=rehearsal,
        candidate=candidate,
    )
    write_rendered(assembled.rendered, folder / "config")
    topology = Topology(use_cpu=not has_cuda(project))
    plan = plan_run(short, assembled, folder, environment or whole_environment(project), local, topology)
    launch.prepare(plan)
    records, log = folder / "measured.jsonl", folder / "trainer.log"
    plan = with_probe(plan, folder / "probe", records, cap_gib=cap_gib)
    reader = ProgressReader(
        lambda stage: out.say(f"  {stage} …", style="dim"),
        lambda step: out.say(f"  step {step.step}/{step.total}", style="dim"),
    )
    with MemoryWatch(training_card()) as watch, _time_limit(seconds) as limit:
        returncode = launch.launch(plan, log=log, on_line=reader.feed)
    measurement = replace(
        read_records(records),
        host_gib=watch.host_bytes / GIB or None,
        card_gib=watch.card_bytes / GIB or None,
    )
    shutil.rmtree(folder / "output", ignore_errors=True)
    ok = measurement.steps >= steps and returncode == 0
    reason = "" if ok else _reason(log, returncode, f"it took longer than {seconds:.0f} s" if limit.is_set() else "")
    return MeasuredRun(measurement, ok, bool(_OUT_OF_MEMORY.search(reason)), reason, log)


def _shortened(project: Project, steps: int) -> Project:
    train = {"steps": steps, "checkpoint_every": steps, "validate_every": steps}
    config = project.config.model_copy(update={"train": project.config.train.model_copy(update=train)})
    return replace(project, config=config, prompts=dict(list(project.prompts.items())[:1]))


def _base(project: Project) -> tuple[str, str | None]:
    model = project.config.model
    local = (project.root / Path(model.base).expanduser()).resolve()
    return str(local) if local.is_dir() else model.base, model.revision


def _named(pair: str, option: Sequence[str]) -> bool:
    name = pair.partition("=")[0]
    return any(other.partition("=")[0].strip().lstrip("-") == name for other in option)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[threading.Event]:
    """End what was started inside after so many seconds; the event says whether that was needed."""
    late = threading.Event()

    def end() -> None:
        late.set()
        end_children()

    timer = threading.Timer(seconds, end) if seconds is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield late
    finally:
        if timer:
            timer.cancel()


def _reason(log: Path, returncode: int, known: str) -> str:
    """Why it ended, in one line: what is known, the trainer's own lack of memory, its last error, its exit code."""
    lines = [strip_ansi(line).strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    memory = [line for line in lines if _OUT_OF_MEMORY.search(line)]
    # The launcher's own last error only says that the trainer had one.
    errors = [line for line in lines if _ERROR.match(line) and "CalledProcessError" not in line]
    return known or next(iter([*memory[-1:], *errors[-1:]]), f"exit code {returncode}")[:300]
