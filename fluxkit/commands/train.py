"""`fluxkit train`: validate, render, launch, watch, and prove the result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import Assembled, assemble, has_cuda, open_project, ready_environment
from fluxkit.commands.supervise import supervise
from fluxkit.commands.validate import check_project
from fluxkit.console import Output
from fluxkit.dataset.report import report_text
from fluxkit.errors import UserError
from fluxkit.extras import require
from fluxkit.hub import check_base, transformer_config
from fluxkit.project.load import Project
from fluxkit.rendering.render import expected_modules, write_rendered
from fluxkit.rendering.settings import Rehearsal, rehearsal_changes
from fluxkit.trainer import launch, runs
from fluxkit.trainer.environment import Environment
from fluxkit.trainer.shims import shims_for, write_shims
from fluxkit.trainer.sources.checkout import open_checkout


def train(
    project: Path | None,
    *,
    rehearse: bool,
    dry_run: bool,
    fresh: bool,
    option: Sequence[str],
    out: Output,
) -> runs.Run | None:
    """Train the project's adapter, or continue its newest unfinished run.

    Args:
        project: the project's folder.
        rehearse: train the tiny random FLUX on the user's own photos instead.
        dry_run: print the plan and launch nothing.
        fresh: start a new run even when one is unfinished.
        option: `-o` pairs.
        out: where to say things.

    Returns:
        The finished run; None after a dry run.

    Raises:
        UserError: something that the user can fix, found before launch.
        TrainerError: the trainer failed, or its result is not what was asked for.
        InterruptedByUser: Ctrl-C; checkpoints are kept and the next `train` continues.
    """
    opened = open_project(project)
    _check_dataset(opened, out)
    rehearsal = _rehearsal(opened) if rehearse else None
    base = str(rehearsal.base) if rehearsal else opened.config.model.base
    local = check_base(base, opened.config.model.revision if not rehearse else None)
    existing = None if rehearse or fresh else runs.unfinished(opened.runs_dir)
    folder = existing.folder if existing else opened.runs_dir / "NEW"
    assembled = _assemble(opened, folder, option, rehearsal)
    if rehearsal:
        _say_changes(assembled, out)
    for note in assembled.rendered.notes:
        out.warn(note)
    environment = ready_environment(opened)
    if dry_run:
        _print_plan(_plan(opened, assembled, folder, environment, local), existing, out)
        return None
    run = existing or _start(opened, assembled, base)
    assembled = _assemble(opened, run.folder, option, rehearsal)
    write_rendered(assembled.rendered, run.config_dir)
    plan = _plan(opened, assembled, run.folder, environment, local)
    launch.prepare(plan, use_cpu=not has_cuda(opened))
    out.say(f"{'Continuing' if existing else 'Starting'} run {run.record.id} in {run.folder}")
    return supervise(run, plan, _expected_modules(assembled, base), out)


def _check_dataset(project: Project, out: Output) -> None:
    report = check_project(project, out=out)
    if not report.ok:
        out.result(report_text(report))
        raise UserError("The dataset has errors.", fix="Correct them as named, then run `fluxkit train` again.")


def _rehearsal(project: Project) -> Rehearsal:
    require("sample", "A rehearsal (it makes a tiny FLUX)")
    from fluxkit.sampling.tiny_flux import make_tiny_flux

    return Rehearsal(base=make_tiny_flux(project.cache_dir / "tiny-flux"))


def _assemble(project: Project, folder: Path, option: Sequence[str], rehearsal: Rehearsal | None) -> Assembled:
    return assemble(
        project,
        config_dir=folder / "config",
        output_dir=folder / "output",
        cli_options=option,
        rehearsal=rehearsal,
    )


def _say_changes(assembled: Assembled, out: Output) -> None:
    out.say("A rehearsal proves your dataset, settings and install; it replaces:")
    for what, before, after in rehearsal_changes(assembled.request):
        out.say(f"  {what}: {before} → {after}")


def _plan(
    project: Project, assembled: Assembled, folder: Path, environment: Environment, local: bool
) -> launch.RunPlan:
    config: Any = assembled.rendered.documents["config.json"]
    names = shims_for(
        assembled.release.version,
        rehearsal_without_cuda=assembled.request.rehearsal is not None and not has_cuda(project),
        precision=str(config.get("--base_model_precision", "no_change")),
    )
    shim_env = write_shims(project.cache_dir / "shims", names) if names else {}
    return launch.plan_launch(
        environment_bin=environment.python.parent,  # not resolved: the interpreter is a link out of the environment
        run_dir=folder,
        extra_env={**assembled.rendered.env, **shim_env},
        offline=local,
        checkout=open_checkout(environment.checkout) if environment.checkout else None,
    )


def _print_plan(plan: launch.RunPlan, existing: runs.Run | None, out: Output) -> None:
    out.emit({"argv": list(plan.argv), "cwd": str(plan.cwd), "env": plan.public_env()})
    out.result(f"run:  {existing.record.id if existing else 'a new one'}")
    out.result(f"argv: {' '.join(plan.argv)}")
    out.result(f"cwd:  {plan.cwd}")
    out.result("env:")
    for name, value in plan.public_env().items():
        out.result(f"  {name}={value}")


def _start(project: Project, assembled: Assembled, base: str) -> runs.Run:
    request = assembled.request
    rehearsal = request.rehearsal
    return runs.new_run(
        project.runs_dir,
        {
            "rehearsal": rehearsal is not None,
            "base": base,
            "revision": None if rehearsal else project.config.model.revision,
            "release": assembled.release.version,
            "steps": rehearsal.steps if rehearsal else request.steps,
            "adapter": request.adapter,
            "profile": request.profile,
            "resolutions": (rehearsal.resolution,) if rehearsal else request.resolutions,
            "batch_size": _batch_size(assembled),
        },
    )


def _batch_size(assembled: Assembled) -> int:
    config: Any = assembled.rendered.documents["config.json"]
    return int(config.get("--train_batch_size", 1)) * int(config.get("--gradient_accumulation_steps", 1))


def _expected_modules(assembled: Assembled, base: str) -> int | None:
    config = transformer_config(base)
    document: Any = assembled.rendered.documents.get("lycoris_config.json")
    return expected_modules(config, document) if config and document else None
