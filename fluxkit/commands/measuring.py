"""A short run of the real trainer on a project's own settings, measured: what `fit --measure` and the benchmarks share.

It is launched as `train` launches, in a folder below the project's cache, so that no run of the user's is touched; the
VAE and text caches are the project's, and what it encodes is there for `train`.
"""

import re
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fluxkit.commands.assemble import assemble, has_cuda, whole_environment
from fluxkit.commands.launching import plan_run
from fluxkit.console import Output
from fluxkit.ending import end_children
from fluxkit.errors import TrainerError
from fluxkit.hardware import MemoryWatch, training_card
from fluxkit.hub import check_base
from fluxkit.project.load import Project
from fluxkit.rendering.profiles import ProfileSettings
from fluxkit.rendering.render import write_rendered
from fluxkit.rendering.settings import Rehearsal
from fluxkit.trainer import launch
from fluxkit.trainer.environment import Environment
from fluxkit.trainer.measure import GIB, Measurement, read_records, with_probe
from fluxkit.trainer.outputs import check_trained
from fluxkit.trainer.progress import ProgressReader, strip_ansi
from fluxkit.trainer.runs import ADAPTER_FILE
from fluxkit.trainer.topology import Topology

# The picture's size decides the memory of a validation image, not how often it is denoised.
_SHORT = ("validation_num_inference_steps=2", "disable_benchmark=true", "lr_warmup_steps=0")
_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|out of memory", re.IGNORECASE)
_CUDA_OUT_OF_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError")
_ERROR = re.compile(r"^\s*(?:[\w.]*(?:Error|Exception)\b.*|Killed)")


@dataclass(frozen=True)
class MeasuredRun:
    """A measured run and how it ended.

    Args:
        measurement: what it took.
        ok: whether it did every step, and left an adapter that learned something.
        out_of_memory: whether it ended for lack of GPU memory.
        reason: why it failed, in the trainer's words; where it did not, how its end was cut short, or nothing.
        log: the trainer's whole output.
        shims: repairs that it was launched with.
    """

    measurement: Measurement
    ok: bool
    out_of_memory: bool
    reason: str
    log: Path
    shims: tuple[str, ...] = ()


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
    turn: Path | None = None,
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
        seconds: after which it is ended; with a `turn`, counted from its turn on, and not later than `<turn>.stop`.
        candidate: settings to measure instead of the profile's.
        environment: the trainer's; the project's own by default.
        turn: where runs that started side by side take turns (`trainer.measure.with_probe`); what is in use on the
            card is then not this run's alone, and not recorded.
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
    shims = tuple(filter(None, plan.env.get("FLUXKIT_SHIMS", "").split(",")))
    plan = with_probe(plan, folder / "probe", records, cap_gib=cap_gib, turn=turn)
    reader = ProgressReader(
        lambda stage: out.say(f"  {stage} …", style="dim"),
        lambda step: out.say(f"  step {step.step}/{step.total}", style="dim"),
    )
    with MemoryWatch(training_card()) as watch, _time_limit(seconds, turn) as limit:
        returncode = launch.launch(plan, log=log, on_line=reader.feed)
    measurement = replace(
        read_records(records),
        host_gib=watch.host_bytes / GIB or None,
        card_gib=None if turn else watch.card_bytes / GIB or None,
    )
    late = limit[0] if limit else ""
    wrong = _wrong(folder / "output" / ADAPTER_FILE, measurement, steps, returncode)
    if not wrong and (wrong := _swallowed(log)):
        measurement = replace(measurement, ended_in="validation_image")
    shutil.rmtree(folder / "output", ignore_errors=True)
    if not wrong:
        cut = f"measured whole; its end was cut short: {late or f'exit code {returncode}'}" if returncode else ""
        return MeasuredRun(measurement, ok=True, out_of_memory=False, reason=cut, log=log, shims=shims)
    reason = _reason(log, late, wrong)
    full = bool(_OUT_OF_MEMORY.search(reason))
    return MeasuredRun(measurement, ok=False, out_of_memory=full, reason=reason, log=log, shims=shims)


def _wrong(weights: Path, measurement: Measurement, steps: int, returncode: int) -> str:
    """Why a run proves nothing; empty where it does.

    Steps and weights prove it, as everywhere. How the process ends once the weights are written is measured by nobody:
    writing pictures for TensorBoard and freeing RAM took the trainer up to a minute.
    """
    if measurement.steps < steps:
        return f"{measurement.steps} of {steps} steps were done"
    if returncode != 0 and not measurement.finished:
        return f"exit code {returncode}"
    try:
        check_trained(weights, "")
    except TrainerError as error:
        return error.message
    return ""


def _swallowed(log: Path) -> str:
    """A lack of memory that the trainer went on after: it logs what goes wrong with a validation image, no more."""
    text = strip_ansi(log.read_text(encoding="utf-8", errors="replace"))
    return next((line.strip() for line in text.splitlines() if _CUDA_OUT_OF_MEMORY.search(line)), "")


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
def _time_limit(seconds: float | None, turn: Path | None = None) -> Iterator[list[str]]:
    """End what was started inside after so many seconds, of its turn if it has one; the list says why it had to be."""
    late: list[str] = []
    over = threading.Event()

    def watch(limit: float) -> None:
        began = None if turn else time.monotonic()
        while not over.wait(0.1):
            if began is None and turn and turn.with_name(f"{turn.name}.train.go").exists():
                began = time.monotonic()
            if turn and turn.with_name(f"{turn.name}.stop").exists():
                late.append("the time for all was over")
            elif began is not None and time.monotonic() - began > limit:
                late.append(f"it took longer than {limit:.0f} s")
            if late:
                end_children()
                return

    if seconds is not None:
        threading.Thread(target=watch, args=(seconds,), daemon=True).start()
    try:
        yield late
    finally:
        over.set()


def _reason(log: Path, known: str, otherwise: str) -> str:
    """Why it ended, in one line: what is known, the trainer's lack of memory, its last error, what else is wrong."""
    lines = [strip_ansi(line).strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    memory = [line for line in lines if _OUT_OF_MEMORY.search(line)]
    # The launcher's own last error only says that the trainer had one.
    errors = [line for line in lines if _ERROR.match(line) and "CalledProcessError" not in line]
    return known or next(iter([*memory[-1:], *errors[-1:]]), otherwise)[:300]
