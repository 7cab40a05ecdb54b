"""From a project to the rendered config of one run: what `render`, `train` and `demo` share."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from fluxkit.commands.training_data import training_digest
from fluxkit.errors import UserError
from fluxkit.hardware import gpus
from fluxkit.project.load import Project, find_project, load_project
from fluxkit.rendering.profiles import ProfileSettings, load_profile
from fluxkit.rendering.render import Rendered, render
from fluxkit.rendering.settings import KnownDefect, Rehearsal, RenderRequest
from fluxkit.trainer.environment import Environment, environment_for, is_ready, say_damage
from fluxkit.trainer.integrity import find_damage
from fluxkit.trainer.lock import choose_platform
from fluxkit.trainer.options import translate
from fluxkit.trainer.pin import Pin, locked
from fluxkit.trainer.releases import Release
from fluxkit.trainer.schema import OptionSchema, check_options, has_schema, load_schema, read_schema


@dataclass(frozen=True)
class Assembled:
    """A project rendered for its pinned release, and checked against that release's options."""

    request: RenderRequest
    rendered: Rendered
    release: Release


def open_project(folder: Path | None) -> Project:
    """The project in or around `folder`, or the current folder."""
    project = load_project(find_project(folder))
    if project.recovered:
        click.echo("An upgrade that was cut short has been completed.", err=True)
    return project


def has_cuda(project: Project) -> bool:
    """Whether the trainer will see a CUDA GPU."""
    platform = project.config.simpletuner.platform
    return bool(gpus()) if platform == "auto" else platform == "cuda"


def pin_of(project: Project) -> Pin:
    """What the project's `[simpletuner]` asks for on this machine."""
    wanted = project.config.simpletuner
    folder = project.root / Path(wanted.path).expanduser() if wanted.path else None
    return Pin(
        version=wanted.version,
        platform=choose_platform(wanted.platform),
        source=wanted.source,
        mirror=_address(project.root, wanted.mirror) if wanted.mirror else None,
        path=folder.resolve() if folder else None,
    )


def _address(root: Path, mirror: str) -> str:
    """A folder, relative to the project's, or an address as it is (`https://…`, `git@host:…`)."""
    folder = root / Path(mirror).expanduser()
    return str(folder.resolve()) if "://" not in mirror and folder.exists() else mirror


def whole_environment(project: Project) -> Environment:
    """`ready_environment`, after a look at each of its files (0.3 s), as `install` takes.

    Raises:
        UserError: it is not installed yet, or something of it is missing or altered.
    """
    environment = ready_environment(project)
    damage = find_damage(environment.root)
    if damage:
        raise UserError(
            f"The installed trainer is damaged: {say_damage(damage)}.",
            fix="Run `fluxkit install`, which repairs it; then run `fluxkit train` again.",
        )
    return environment


def ready_environment(project: Project) -> Environment:
    """The environment that the project's trainer is installed in.

    Raises:
        UserError: it is not installed yet.
    """
    pin = pin_of(project)
    lock = locked(pin, project.lock_file)
    environment = environment_for(lock) if lock else None
    if environment is None or not is_ready(environment):
        raise UserError(f"SimpleTuner {pin.release.version} is not installed yet.", fix="Run `fluxkit install`.")
    return environment


def schema_of(project: Project) -> OptionSchema:
    """The options of the pinned release: shipped with fluxkit, else as the installed release answered.

    A folder of the user's own (source `path`) may differ from the release it calls itself: it is always asked.

    Raises:
        UserError: none is shipped and the release is not installed yet.
    """
    pin = pin_of(project)
    if pin.source != "path" and has_schema(pin.release.version):
        return load_schema(pin.release.version)
    return read_schema(ready_environment(project).options_file)


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`-o name=value` pairs; a value is read as JSON where it is JSON (`8`, `true`, `0.1`), else as text.

    Raises:
        UserError: a pair without `=`.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            raise UserError(f"-o {pair!r} is not NAME=VALUE.", fix="For example: -o train_batch_size=2")
        try:
            options[name.strip()] = json.loads(value)
        except json.JSONDecodeError:
            options[name.strip()] = value
    return options


def assemble(
    project: Project,
    *,
    config_dir: Path,
    output_dir: Path,
    cli_options: Sequence[str] = (),
    rehearsal: Rehearsal | None,
    candidate: ProfileSettings | None = None,
) -> Assembled:
    """Render the project's config in memory and check every option against the pinned release.

    Args:
        project: the project.
        config_dir: where the files will be written; paths in them point there.
        output_dir: the trainer's output folder.
        cli_options: `-o` pairs of this call.
        rehearsal: what a rehearsal replaces, or None for the real thing.
        candidate: settings to measure instead of the profile's.

    Raises:
        UserError: an option is unknown, mistyped or out of its choices; all problems in one message.
    """
    config = project.config
    release = pin_of(project).release
    schema = schema_of(project)
    if not project.prompts:
        raise UserError("There are no prompts.", fix="Write at least one into prompts.toml, under [prompts].")
    user, cli = (translate(options, schema) for options in (config.train.options, parse_options(cli_options)))
    request = RenderRequest(
        release=release.version,
        trigger=config.project.trigger,
        dataset_dir=project.training_dir.resolve(),
        dataset_digest=training_digest(project),
        resolutions=config.dataset.resolutions,
        repeats=config.dataset.repeats,
        captions=config.dataset.captions,
        base=_resolved_base(project),
        adapter=config.model.adapter,
        profile=config.train.profile,
        steps=config.train.steps,
        checkpoint_every=config.train.checkpoint_every,
        validate_every=config.train.validate_every,
        seed=config.train.seed,
        learning_rate=config.train.learning_rate,
        validation_prompt=config.train.validation_prompt,
        prompts=project.prompts,
        user_options=user.options,
        cli_options=cli.options,
        lycoris=config.lycoris,
        env=config.env,
        cache_dir=project.cache_dir,
        output_dir=output_dir,
        config_dir=config_dir,
        rehearsal=rehearsal,
        has_cuda=has_cuda(project),
        revision=config.model.revision,
        defects=_defects(release),
        candidate=candidate,
    )
    rendered = render(request, accepts=lambda name: schema.find(name) is not None)
    _check(rendered, schema)
    notes = (
        *((release.note,) if release.note else ()),
        *user.notes,
        *cli.notes,
        *rendered.notes,
        *_unmeasured(release, request),
    )
    return Assembled(request, replace(rendered, notes=notes), release)


def _resolved_base(project: Project) -> str:
    """A relative folder means one in the project; the trainer starts elsewhere."""
    base = project.config.model.base
    local = (project.root / Path(base).expanduser()).resolve()
    return str(local) if local.is_dir() else base


def _unmeasured(release: Release, request: RenderRequest) -> Iterator[str]:
    """A note for each repair that the profile was measured with and the release doesn't get."""
    repairs = {defect.replacement for defect in release.defects if defect.action == "shim"}
    profile = request.candidate or load_profile(request.profile, release.version)
    for shim in profile.shims:
        if shim not in repairs and request.rehearsal is None:
            yield (
                f"The profile {profile.name} was measured with a repair ({shim}) that is not known to be needed or "
                f"to work with SimpleTuner {release.version}: it may take more memory than the profile says."
            )


def _defects(release: Release) -> tuple[KnownDefect, ...]:
    return tuple(
        KnownDefect(defect.option, defect.value, defect.replacement, defect.reason)
        for defect in release.defects
        if defect.action in ("replace", "refuse")
    )


def _check(rendered: Rendered, schema: OptionSchema) -> None:
    config = rendered.documents["config.json"]
    if not isinstance(config, dict):
        raise TypeError("config.json is not an object")
    problems = check_options({str(k): v for k, v in config.items()}, schema)
    if problems:
        lines = "\n".join(f"  {problem.name}: {problem.message}" for problem in problems)
        raise UserError(
            f"SimpleTuner {schema.release} would not take these options:\n{lines}",
            fix="Correct them in [train.options] of fluxkit.toml or after -o.",
        )
