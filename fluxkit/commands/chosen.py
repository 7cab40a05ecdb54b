"""Which base model and which adapters `fluxkit sample` makes images with: a run's, somebody else's, or both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.hub import adapter_from_hub
from fluxkit.project.load import Project
from fluxkit.sampling.plan import AdapterWeight
from fluxkit.trainer.runs import Run, find_run, list_runs

BASE_ALONE = "base"
_KNOWN_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class Chosen:
    """What images are made with.

    Args:
        base: Hub id or folder of the base model.
        revision: the Hub revision.
        adapters: stacks by name.
        names: those to make images with, in order; "" is the base alone.
        folder: the name of the folder for the images.
        run: the run's id; empty without one.
    """

    base: str
    revision: str | None
    adapters: dict[str, tuple[AdapterWeight, ...]]
    names: tuple[str, ...]
    folder: str
    run: str = ""


def choose(
    project: Project,
    *,
    run_id: str | None,
    checkpoint: str | None,
    adapters: Sequence[str],
    base: str | None,
    out: Output,
) -> Chosen:
    """What the options name. Adapters from elsewhere need no run; with `--run` or `--checkpoint` they are added to it.

    Raises:
        UserError: nothing was trained yet, or there is no such run, checkpoint or adapter.
    """
    extra = tuple(parse_adapter(text) for text in adapters)
    extra_name = "+".join(_short_name(one) for one in extra)
    if extra and not run_id and not checkpoint:
        model = project.config.model
        chosen = Chosen(model.base, model.revision, {extra_name: extra}, (extra_name,), extra_name)
    else:
        run = find_run(project.runs_dir, run_id) if run_id else _newest(project)
        chosen = _of_run(run, checkpoint or "latest", extra, extra_name)
    if base and base != chosen.base:
        out.say(f"The adapter was trained on {chosen.base}; the images are made with {base}.")
        chosen = replace(chosen, base=base, revision=None, folder=f"{chosen.folder}-on-{Path(base).name}")
    return chosen


def parse_adapter(text: str) -> AdapterWeight:
    """`PATH[:WEIGHT]`; a path is a file, a folder with one adapter, or a Hub id.

    Raises:
        UserError: there is none.
    """
    path, colon, weight = text.rpartition(":")
    try:
        share = float(weight) if colon else 1.0
    except ValueError:
        share, path = 1.0, text
    else:
        path = path if colon else text
    if not -10 <= share <= 10:
        raise UserError(f"--adapter {text}: {share} is no weight.", fix="For example: --adapter style.safetensors:0.7")
    return AdapterWeight(_adapter_file(path), share)


def _adapter_file(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        known = [path / name for name in _KNOWN_FILES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if len(known) == 1:
            return known[0]
        raise UserError(f"The folder {path} holds {len(known)} adapters.", fix="Name the file.")
    if text.startswith((".", "/", "~")) or text.count("/") < 1:
        raise UserError(f"There is no adapter {text}.", fix="Check the path, or run `fluxkit runs`.")
    return adapter_from_hub(text)


def _short_name(adapter: AdapterWeight) -> str:
    path = adapter.path
    name = path.parent.name if path.name in _KNOWN_FILES else path.stem
    return name if adapter.weight == 1.0 else f"{name}@{adapter.weight:g}"


def _of_run(run: Run, checkpoint: str, extra: tuple[AdapterWeight, ...], extra_name: str) -> Chosen:
    files = _checkpoints(run, checkpoint)
    ending = f"+{extra_name}" if extra else ""
    stacks = {f"{name}{ending}": (AdapterWeight(path), *extra) for name, path in files.items() if path}
    names = tuple(f"{name}{ending}" if path else "" for name, path in files.items())
    folder = f"{run.record.id}-{names[0] or BASE_ALONE}" if len(names) == 1 else f"{run.record.id}-checkpoints{ending}"
    return Chosen(run.record.base, run.record.revision, stacks, names, folder, run.record.id)


def _newest(project: Project) -> Run:
    """The newest run with weights that is not a rehearsal: a rehearsal's adapter fits the tiny model alone."""
    real = [run for run in list_runs(project.runs_dir) if not run.record.rehearsal]
    for run in reversed(real):
        if run.final_weights.is_file() or run.checkpoints():
            return run
    if real:
        raise UserError("No run has saved an adapter yet.", fix="Run `fluxkit train` to continue.")
    raise UserError(
        "Nothing was trained yet.", fix="Run `fluxkit train`; or name a rehearsal with --run, or a file with --adapter."
    )


def _checkpoints(run: Run, wanted: str) -> dict[str, Path | None]:
    """The adapters by name, in the order asked for; None is the base alone."""
    steps = run.checkpoints()
    every: dict[str, Path | None] = {f"checkpoint-{step}": path for step, path in steps.items()}
    if run.final_weights.is_file():
        every["final"] = run.final_weights
    if not every:
        raise UserError(f"Run {run.record.id} has saved no adapter yet.", fix="Run `fluxkit train` to continue it.")
    chosen: dict[str, Path | None] = {}
    for part in (part.strip() for part in wanted.split(",")):
        name = f"checkpoint-{int(part)}" if part.isdigit() else part
        if part == "all":
            chosen |= every
        elif part == "latest":
            newest = list(every)[-1]
            chosen[newest] = every[newest]
        elif part == BASE_ALONE:
            chosen[BASE_ALONE] = None
        elif name in every:
            chosen[name] = every[name]
        else:
            known = ", ".join(str(step) for step in steps) or "none"
            raise UserError(
                f"Run {run.record.id} has no checkpoint {part}.",
                fix=f"It has: {known}; or: latest, final, all, base; or several with commas.",
            )
    return chosen
