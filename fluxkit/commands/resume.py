"""What a run goes on from, said before the trainer is started: its checkpoint, and the settings that changed since."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import Assembled
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.trainer.changes import Effect, SettingChange, changed_launch, changed_settings
from fluxkit.trainer.checkpoints import ResumePoint, SetAside, find_resume_point, set_aside
from fluxkit.trainer.handover import describe, handover
from fluxkit.trainer.runs import Run
from fluxkit.trainer.schema import OptionSchema

_TITLES = {
    Effect.FINE: "Changed since this run was started:",
    Effect.IGNORED: "Changed, but without effect on a run that goes on:",
}


@dataclass(frozen=True)
class Resume:
    """How an unfinished run goes on.

    Args:
        point: its checkpoint.
        changes: settings that differ, none of which breaks it.
    """

    point: ResumePoint
    changes: tuple[SettingChange, ...]


def check_resume(
    run: Run, assembled: Assembled, schema: OptionSchema, launched: Mapping[str, Any], out: Output
) -> Resume:
    """Find the run's checkpoint and compare its settings with today's; say what is found, change nothing.

    Args:
        run: the run.
        assembled: the project as it would be launched now.
        schema: the options of its release.
        launched: what the run's record would say of the launch: `gpus`, `machines`, `batch_size`, `env`.
        out: where to say things.

    Raises:
        UserError: a changed setting would break the run, with the list of them.
    """
    point = find_resume_point(run)
    for each in point.damaged:
        out.warn(f"{each.folder.name} can't be used: {each.reason}.")
    if point.folder is None:
        if point.damaged:
            out.warn(f"No checkpoint of run {run.record.id} is whole: it starts again from the beginning.")
        return Resume(point, ())
    changes = changed_settings(
        frozen_documents(run.config_dir),
        assembled.rendered.documents,
        adapter=assembled.request.adapter,
        release=assembled.release.version,
        schema=schema,
    )
    now = replace(run.record, release=assembled.release.version, **launched)
    config: Any = assembled.rendered.documents["config.json"]
    changes += changed_launch(run.record, now, config)
    before, after = run.record.release, assembled.release.version
    _refuse_breaking(
        run, point, [*_too_few_steps(point, assembled), *_another_release(before, after), *_breaking(changes)]
    )
    if before != after:
        out.warn(
            f"Run {run.record.id} was started with SimpleTuner {before} and goes on with {after}: "
            f"{describe(before, after)}. `fluxkit upgrade {before}` goes back, `fluxkit train --fresh` starts anew."
        )
    for effect, title in _TITLES.items():
        lines = [change.describe() for change in changes if change.effect is effect]
        if lines:
            out.say("\n  ".join((title, *lines)))
    return Resume(point, tuple(changes))


def begin_resume(run: Run, resume: Resume, assembled: Assembled, out: Output) -> Run:
    """Move damaged checkpoints out of the trainer's way, and write into the record what the run goes on with.

    Final weights of an earlier launch go too: those that are there at the end must be of this one.
    """
    old = (SetAside(run.final_weights, "of an earlier launch"),) if run.final_weights.is_file() else ()
    moved = set_aside(run, (*resume.point.damaged, *old))
    for path in moved:
        out.say(f"Moved out of the way, nothing deleted: {path}")
    if resume.point.folder:
        out.say(f"From {resume.point.folder.name}.")
    request = assembled.request
    return run.update(
        steps=request.steps,
        release=assembled.release.version,
        profile=request.profile,
        resolutions=request.resolutions,
    )


def frozen_documents(config_dir: Path) -> dict[str, Any]:
    """The JSON documents of a run's config, by file name; one that can't be read is left out."""
    documents = {}
    for path in config_dir.glob("*.json"):
        try:
            documents[path.name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return documents


def _too_few_steps(point: ResumePoint, assembled: Assembled) -> list[str]:
    steps = assembled.request.steps
    if steps >= point.step:
        return []
    return [f"[train] steps: {steps} (the run is at step {point.step} already)"]


def _another_release(before: str, after: str) -> list[str]:
    trial = handover(before, after)
    if trial is None or trial.goes_on:
        return []
    return [f"SimpleTuner: {before} → {after} ({describe(before, after)}; `fluxkit upgrade {before}` puts it back)"]


def _breaking(changes: list[SettingChange]) -> list[str]:
    return [change.describe() for change in changes if change.effect is Effect.BREAKS]


def _refuse_breaking(run: Run, point: ResumePoint, lines: list[str]) -> None:
    if lines and point.folder:
        raise UserError(
            "\n  ".join((f"Run {run.record.id} can't go on from {point.folder.name} with what changed:", *lines)),
            fix="Put it back as it was and run `fluxkit train` again, or start a new run: `fluxkit train --fresh` "
            "(this one is kept, its checkpoints can be sampled).",
        )
