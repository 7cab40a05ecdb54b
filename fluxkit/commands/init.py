"""`fluxkit init`: a few answers become a project."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from fluxkit.console import Output
from fluxkit.dataset.trigger import trigger_findings
from fluxkit.errors import UserError
from fluxkit.hardware import gpus, host_memory
from fluxkit.project.config import ProjectConfig, TrainSection
from fluxkit.project.load import CONFIG_FILE, load_project
from fluxkit.project.scaffold import scaffold
from fluxkit.rendering.profiles import class_profiles, load_profile, not_measured, profile_names, smaller_stand_in
from fluxkit.textmatch import did_you_mean
from fluxkit.trainer.releases import find_release

_DEFAULT_TRIGGER_FIX = 'Name one with --trigger: a made-up word such as "behitek".'


def init(
    directory: Path,
    *,
    trigger: str | None,
    subject: str | None,
    dataset: Path | None,
    profile: str | None,
    simpletuner: str | None,
    yes: bool,
    out: Output,
) -> None:
    """Make a project in `directory`; ask on a terminal for what no flag says, unless `yes`.

    Raises:
        UserError: no trigger or an unusable one, an unknown profile, a GPU that is too small, no version of
            SimpleTuner, or the folder can't be written.
    """
    root = directory.expanduser().resolve()
    if (root / CONFIG_FILE).exists():
        config = load_project(root).config
        out.say("This is a project already: its settings stay, and only missing files are added.")
    else:
        ask = sys.stdin.isatty() and not yes
        chosen = _checked_profile(profile or "auto", out)
        pinned = find_release(simpletuner) if simpletuner else None
        if pinned and pinned.note:
            out.warn(pinned.note)
        word = _trigger(_invented(root) if yes and trigger is None else trigger, root, ask, out)
        values = {
            "project": {
                "name": _project_name(root, word),
                "trigger": word,
                "subject": subject or _ask("What do the photos show (man, woman, dog)?", "person", ask),
            },
            "dataset": {"path": _dataset_path(dataset, root, ask)},
            "train": {"profile": chosen, **_lengths(chosen, out)},
            "simpletuner": {"version": pinned.version, "source": pinned.sources[0]} if pinned else {},
        }
        config = _config(values)
    report = scaffold(root, config)
    for path in report.written:
        out.say(f"wrote {path}")
    for path in report.kept:
        out.say(f"kept  {path} (it was there already; nothing in it was changed)")
    out.result("\n".join(_next_steps(root, config)))


def _config(values: dict[str, Any]) -> ProjectConfig:
    try:
        return ProjectConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"{key}: {problem['msg']}, not {problem['input']!r}.", fix="Give another value.") from error


def profile_for_memory(gib: float) -> str:
    """The largest profile that a card's memory holds: what it was measured to take, and a CUDA context.

    Raises:
        UserError: it holds none.
    """
    fitting = [name for name in class_profiles() if load_profile(name).card_gib <= gib]
    if fitting:
        return fitting[-1]
    raise UserError(
        f"The graphics card has {gib:.1f} GiB of memory; training FLUX.1-dev takes 12 GB at least.",
        fix=f"Train on a machine with a larger card: name its profile, {_flags()}.",
    )


def _checked_profile(name: str, out: Output) -> str:
    if name == "auto":
        found = gpus()
        if found:
            return _for_the_ram(profile_for_memory(found[0].memory_gib), out)
        out.warn("No NVIDIA GPU found here; taking 24gb. Set [train] profile for the machine that trains.")
        return "24gb"
    known = profile_names()
    if name in not_measured():
        raise UserError(f"The profile {name} is not measured yet.", fix=f"Use {_flags()}.")
    if name not in known:
        hint = did_you_mean(name, known)
        raise UserError(f'There is no profile "{name}".{hint}', fix=f"Use auto, {' or '.join(known)}.")
    return name


def _for_the_ram(name: str, out: Output) -> str:
    """The profile, or the one that stands in for it where that fits the RAM and this one doesn't."""
    profile, memory = load_profile(name), host_memory()
    both = memory.total + memory.swap
    other = smaller_stand_in(profile, both)
    if other is None or profile.measured.host_gib * 2**30 <= both:
        return name
    out.say(
        f"{name} takes {profile.measured.host_gib:.0f} GiB of RAM and there are {both / 2**30:.0f}; taking "
        f"{other.name}, which takes {other.measured.host_gib:.0f} and is less exact."
    )
    return other.name


def _flags() -> str:
    return " or ".join(f"--profile {name}" for name in class_profiles())


def _lengths(profile: str, out: Output) -> dict[str, int]:
    """Steps for a profile that shows several photos a step: as many photos and checkpoints as by default."""
    batch = load_profile(profile).measured.batch_size
    if batch == 1:
        return {}
    default = TrainSection()
    every = -(-default.checkpoint_every // batch)
    steps = every * (default.steps // default.checkpoint_every)
    out.say(f"{profile} shows {batch} photos a step: {steps} steps show as many as {default.steps} of one photo.")
    return {"steps": steps, "checkpoint_every": every, "validate_every": every}


def _trigger(given: str | None, root: Path, ask: bool, out: Output) -> str:
    """The trigger, without what would spoil a training; on a terminal it is asked for until it is usable."""
    while True:
        trigger = given
        if trigger is None:
            if not ask:
                raise UserError("A project needs a trigger.", fix=_DEFAULT_TRIGGER_FIX)
            trigger = _ask("A made-up word that will stand for the person, 3 to 16 letters?", _invented(root), ask)
        findings = list(trigger_findings(trigger, root))
        errors = [finding for finding in findings if finding.severity == "error"]
        if not errors:
            for finding in findings:
                out.warn(finding.message)
            return trigger
        if given is not None:
            raise UserError(errors[0].message, fix=_DEFAULT_TRIGGER_FIX)
        out.warn(errors[0].message)


def _ask(question: str, default: str, ask: bool) -> str:
    return str(click.prompt(question, default=default)).strip() if ask else default


def _invented(root: Path) -> str:
    """A trigger to propose: the folder's name, shortened, with a digit that no dictionary word has."""
    letters = re.sub(r"[^a-z]", "", root.name.lower())[:8]
    return f"{letters if len(letters) >= 3 else 'flux'}v1"


def _project_name(root: Path, trigger: str) -> str:
    name = re.sub(r"[^\w.-]+", "-", root.name).strip("-.")[:64]
    return name or f"{trigger}-lora"


def _dataset_path(given: Path | None, root: Path, ask: bool) -> str:
    """How fluxkit.toml names the dataset: relative inside the project, absolute outside.

    A path from the command line is relative to the current folder, as in any shell; where nothing is there, it is
    one to be made in the project.
    """
    path = (given or Path(_ask("Which folder are the photos in?", "dataset", ask))).expanduser()
    if not path.is_absolute() and given is not None and path.exists():
        path = path.resolve()
    inside = path.is_absolute() and path.is_relative_to(root) and path != root
    return (path.relative_to(root) if inside else path).as_posix()


def _next_steps(root: Path, config: ProjectConfig) -> Iterator[str]:
    yield "Next:"
    if root != Path.cwd():
        yield f"  cd {root}"
    photos = root / Path(config.dataset.path).expanduser()
    if not photos.is_dir():
        yield f"  put 20 photos into {photos}"
    yield "  fluxkit prepare    makes a clean copy of the photos"
    yield "  fluxkit caption    describes each of them"
    yield "  fluxkit validate   checks photos and captions"
    yield "  fluxkit install    fetches the trainer"
    yield "  fluxkit train      trains"
    yield "  fluxkit sample     makes the pictures"
