"""`fluxkit upgrade`: another SimpleTuner, proven on this project before anything of it changes.

Everything is made beside the project: the lock, the environment, the changed settings, a rehearsal with them. The last
act replaces `fluxkit.toml` and `fluxkit.lock` together; whatever fails before it leaves the project as it was.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from packaging.version import Version

from fluxkit.commands.assemble import assemble, open_project, pin_of, schema_of
from fluxkit.commands.staging import STAGING, Staged, as_it_would_be, stage
from fluxkit.console import Mute, Output
from fluxkit.errors import FluxkitError, UserError
from fluxkit.extras import require
from fluxkit.project.journal import contents, switch
from fluxkit.project.load import CONFIG_FILE, LOCK_FILE, Project
from fluxkit.rendering.render import Rendered, diff_documents
from fluxkit.trainer import environment as environments
from fluxkit.trainer.checkpoints import find_resume_point
from fluxkit.trainer.handover import describe
from fluxkit.trainer.options import Change, schema_diff, vanished_options
from fluxkit.trainer.pin import locked, resolve
from fluxkit.trainer.releases import Release, find_release, releases
from fluxkit.trainer.runs import unfinished
from fluxkit.trainer.schema import OptionSchema


def upgrade(project: Path | None, *, version: str | None, dry_run: bool, skip_rehearsal: bool, out: Output) -> None:
    """Move the project to another SimpleTuner release, newer or older.

    Args:
        project: the project's folder.
        version: the release; None takes the newest that fluxkit's own runs have trained with.
        dry_run: do everything but the switch.
        skip_rehearsal: for a release that fluxkit has not rehearsed itself; refused for one that it has.
        out: where to say things.

    Raises:
        UserError: an option in use has no successor, the settings don't fit the release, or a file was edited while
            the upgrade ran.
        InstallError: the release can't be had, or does not start.
        TrainerError: the rehearsal failed.
    """
    opened = open_project(project)
    before = {name: contents(opened.root / name) for name in (CONFIG_FILE, LOCK_FILE)}
    release = find_release(version) if version else newest_proven()
    old_version = pin_of(opened).release.version
    pin = replace(pin_of(opened), version=release.version)
    if pin.source == "path":
        raise UserError(
            "This project's SimpleTuner is a folder of your own; fluxkit can't upgrade that.",
            fix='Change the folder, or set source = "pypi" in [simpletuner] and run `fluxkit upgrade` again.',
        )
    if skip_rehearsal and release.tested.rehearsed:
        raise UserError(
            f"SimpleTuner {release.version} can be rehearsed, so it has to be.", fix="Leave out --skip-rehearsal."
        )
    if not skip_rehearsal:
        require("sample", "An upgrade (it rehearses the new release on a tiny FLUX)")
    _say_target(old_version, release, out)
    _say_unfinished(opened, release, out)
    # A lock file that isn't there: what the project has now must not answer for what it would get.
    lock = resolve(pin, opened.cache_dir / STAGING / "none", out.say)
    if release.version == old_version and lock == locked(pin_of(opened), opened.lock_file):
        out.say(f"This project has SimpleTuner {release.version} and its newest lock already.")
        out.emit({"from": old_version, "to": release.version, "switched": False, "changes": [], "diff": ""})
        return
    out.say(f"Lock: {'shipped with fluxkit' if lock.origin == 'shipped' else 'resolved now'}, as of {lock.as_of}")
    environment = environments.install(lock, report=out.say)
    out.say(f"Installed beside the old one: {environment.root}")
    staged = stage(opened, lock, environments.python_version(environment), old_version)
    new = as_it_would_be(opened, staged)
    present = _render(opened)
    changes = _compare(opened, new, present, out)
    for name, (was, now) in staged.migrated.items():
        out.say(f"  {name}: {was!r} becomes {now!r}, which means the same in {release.version}")
    diff = _rendered_diff(present, _render(new), out)
    _rehearse(staged, release, skip=skip_rehearsal, out=out)
    if not dry_run:
        _switch(opened, staged, before, out)
    shutil.rmtree(staged.folder, ignore_errors=True)
    shown = [{"kind": change.kind, "name": change.name, "old": change.old, "new": change.new} for change in changes]
    report = {"from": old_version, "to": release.version, "switched": not dry_run, "changes": shown, "diff": diff}
    out.emit(report)
    out.result(
        f"A dry run: nothing was switched; {old_version} stays."
        if dry_run
        else f"This project now uses SimpleTuner {release.version}. Back again: fluxkit upgrade {old_version}"
    )


def newest_proven() -> Release:
    """The newest release that fluxkit's own runs have trained with."""
    return next(release for release in releases() if release.tested.rehearsed)


def proof(release: Release) -> str:
    """What is known of a release, in a few words."""
    if release.tested.gpu_measured:
        return "trained by fluxkit's own runs, its memory measured on a GPU"
    if release.tested.rehearsed:
        return "trained by fluxkit's own runs on a CPU; its memory on a GPU was not measured"
    return "not tried by fluxkit's own runs"


def _say_target(old: str, release: Release, out: Output) -> None:
    direction = "back to" if Version(release.version) < Version(old) else "to"
    out.say(f"SimpleTuner {old} {direction} {release.version}: {proof(release)}.")
    if release.note:
        out.warn(release.note)


def _say_unfinished(opened: Project, release: Release, out: Output) -> None:
    """Before the minutes that it takes: what becomes of a run that has steps left."""
    run = unfinished(opened.runs_dir)
    if run is None or run.record.release == release.version or find_resume_point(run).folder is None:
        return
    old, new = run.record.release, release.version
    out.warn(
        f"Run {run.record.id} is not finished: {describe(old, new)}. `fluxkit train` will go on with it in {new}. "
        f"To finish it with {old}, press Ctrl-C now and run `fluxkit train` first; or come back to it later: the old "
        f"trainer is kept, and `fluxkit upgrade {old}` returns to it."
    )


def _compare(opened: Project, new: Project, present: Rendered, out: Output) -> list[Change]:
    """What differs for this project; options that are gone refuse the upgrade."""
    try:
        old_schema: OptionSchema = schema_of(opened)
    except UserError as error:  # a release that is neither shipped nor installed
        out.warn(f"{error.message} What changed since it can't be compared.")
        return []
    new_schema = schema_of(new)
    gone = vanished_options(opened.config.train.options, old_schema, new_schema)
    if gone:
        lines = "\n".join(f"  {option.name} = {option.value!r}: {option.reason}" for option in gone)
        raise UserError(
            f"SimpleTuner {new_schema.release} can't do what this project asks for; nothing was changed:\n{lines}",
            fix=f"Take them out of [train.options], or stay with {old_schema.release}.",
        )
    rendered: Any = present.documents["config.json"]
    changes = [
        change for change in schema_diff(old_schema, new_schema, rendered) if change.used or change.kind == "default"
    ]
    # Types and choices that the rendered values fit are nobody's concern; where they don't, rendering says so.
    told = [change for change in changes if change.kind not in ("retyped", "choices")]
    if told:
        out.say(f"What {new_schema.release} does differently, as far as it concerns this project:")
        for change in told:
            out.say(f"  {_describe(change)}")
    return changes


def _describe(change: Change) -> str:
    texts = {
        "renamed": f"{change.name} is called {change.new} now",
        "removed": f"{change.name} is gone",
        "default": f"{change.name} was {change.old} unless set, and is {change.new} now",
    }
    ours = " (this project sets it: nothing changes)" if change.kind == "default" and change.used else ""
    return texts.get(change.kind, f"{change.name} is new") + ours


def _rendered_diff(before: Rendered, after: Rendered, out: Output) -> str:
    for note in after.notes:
        out.warn(note)
    diff = diff_documents(before, after)
    out.say(f"SimpleTuner's config changes by:\n{diff.rstrip()}" if diff else "SimpleTuner's config stays the same.")
    return diff


def _render(project: Project) -> Rendered:
    root = project.root
    return assemble(project, config_dir=root / "config", output_dir=root / "output", rehearsal=None).rendered


def _rehearse(staged: Staged, release: Release, *, skip: bool, out: Output) -> None:
    if not release.tested.rehearsed and not skip and sys.stdin.isatty():
        skip = not click.confirm(f"Rehearse SimpleTuner {release.version} on this project (minutes)?", default=True)
    if skip:
        out.warn(f"SimpleTuner {release.version} was not rehearsed.")
        return
    from fluxkit.commands.train import train

    out.say("Rehearsing it on this project (a few minutes)")
    inner = Mute(verbosity=0 if out.verbosity > 0 else -1)
    try:
        train(staged.folder, rehearse=True, dry_run=False, fresh=True, option=(), out=inner)
    except FluxkitError as error:
        message = f"The rehearsal with {release.version} did not succeed; nothing was changed.\n{error.message}"
        raise type(error)(message, fix=error.fix) from error
    out.say(f"SimpleTuner {release.version} trains this project.")


def _switch(opened: Project, staged: Staged, before: dict[str, bytes | None], out: Output) -> None:
    files = {CONFIG_FILE: staged.config, LOCK_FILE: staged.lock}
    backups = {f"{name}.bak": old for name, old in before.items() if old is not None}
    switch(opened.root, {**backups, **files}, before=before)
    out.say(f"The old {' and '.join(name for name in before if before[name] is not None)} are kept as .bak")
