"""`fluxkit train`: validate, render, launch, watch, and prove the result."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import Assembled, assemble, open_project, schema_of, whole_environment
from fluxkit.commands.launching import plan_run, watched
from fluxkit.commands.machines import ask_topology, check_same, machine_folder, run_to_join, take_part
from fluxkit.commands.plan_report import print_plan
from fluxkit.commands.preflight import assemble_project, check_compiler, check_fit
from fluxkit.commands.recache import refresh_caches
from fluxkit.commands.resume import begin_resume, check_resume
from fluxkit.commands.supervise import supervise
from fluxkit.commands.validate import check_project
from fluxkit.console import Output
from fluxkit.dataset.model import DatasetReport
from fluxkit.dataset.report import report_text
from fluxkit.errors import UserError
from fluxkit.extras import require
from fluxkit.hub import check_base, transformer_config
from fluxkit.project.load import Project
from fluxkit.rendering.rehearsal import rehearsal_changes
from fluxkit.rendering.render import expected_modules, write_rendered
from fluxkit.rendering.settings import Rehearsal
from fluxkit.trainer import launch, runs
from fluxkit.trainer.listener import Listener, listening
from fluxkit.trainer.occupancy import Occupancy, occupy
from fluxkit.trainer.topology import Topology


def train(
    project: Path | None,
    *,
    rehearse: bool,
    dry_run: bool,
    fresh: bool,
    option: Sequence[str],
    gpus: int | None = None,
    num_machines: int | None = None,
    machine_rank: int | None = None,
    main_address: str | None = None,
    run_id: str | None = None,
    no_fit_check: bool = False,
    out: Output,
) -> runs.Run | None:
    """Train the project's adapter, or continue its newest unfinished run.

    Args:
        project: the project's folder.
        rehearse: train the tiny random FLUX on the user's own photos instead.
        dry_run: print the plan and launch nothing.
        fresh: start a new run even when one is unfinished.
        option: `-o` pairs.
        no_fit_check: start it even where it is known not to fit this machine.
        gpus: training processes on each machine; None takes what the continued run had, else 1.
        num_machines: how many machines train together.
        machine_rank: this one's number.
        main_address: `HOST[:PORT]` of machine 0.
        run_id: the run that a machine other than 0 joins.
        out: where to say things.

    Returns:
        The finished run; None after a dry run, and on the machines that joined one.

    Raises:
        UserError: something that the user can fix, found before launch.
        TrainerError: the trainer failed, or its result is not what was asked for.
        InterruptedByUser: Ctrl-C; checkpoints are kept and the next `train` continues.
    """
    opened = open_project(project)
    existing = None if rehearse or fresh else runs.unfinished(opened.runs_dir)
    topology = ask_topology(
        opened,
        gpus=gpus,
        machines=num_machines,
        rank=machine_rank,
        address=main_address,
        rehearse=rehearse,
        existing=existing,
    )
    if topology.rank:
        _join(opened, topology, run_id, option, rehearse=rehearse, dry_run=dry_run, out=out)
        return None
    if run_id:
        raise UserError("--run is for the machines that join a run.", fix="Machine 0 continues the newest by itself.")
    report = _check_dataset(opened, topology.processes, out)
    names = [facts.path.relative_to(opened.training_dir).as_posix() for facts in report.images]
    with contextlib.ExitStack() as held:
        # From here on nobody else trains in this project, nor takes the run that this one continues.
        occupancy = None if dry_run else held.enter_context(occupy(opened.root))
        listener = None if dry_run else held.enter_context(listening())
        if not (rehearse or dry_run):
            assembled = assemble_project(opened, option)
            check_compiler(opened, assembled, out)
            if not no_fit_check:
                check_fit(opened, assembled, report, out, fresh=fresh, gpus=topology.gpus)
        return _train(opened, topology, names, rehearse, fresh, option, out, occupancy, listener)


def _train(
    opened: Project,
    topology: Topology,
    photos: Sequence[str],
    rehearse: bool,
    fresh: bool,
    option: Sequence[str],
    out: Output,
    occupancy: Occupancy | None,
    listener: Listener | None,
) -> runs.Run | None:
    rehearsal = _rehearsal(opened) if rehearse else None
    base = str(rehearsal.base) if rehearsal else opened.config.model.base
    local = check_base(base, opened.config.model.revision if not rehearse else None)
    existing = None if rehearse or fresh else runs.unfinished(opened.runs_dir)
    folder = existing.folder if existing else runs.next_folder(opened.runs_dir)
    assembled = _assemble(opened, folder, option, rehearsal)
    if rehearsal:
        _say_changes(assembled, out)
    for note in assembled.rendered.notes:
        out.warn(note)
    environment = whole_environment(opened)
    launched = _launched(assembled, topology)
    resume = check_resume(existing, assembled, schema_of(opened), launched, out) if existing else None
    if occupancy is None:
        plan = plan_run(opened, assembled, folder, environment, local, topology)
        print_plan(plan, assembled, folder, existing, out)
        return None
    run = existing or _start(opened, assembled, base)
    if resume:
        run = begin_resume(run, resume, assembled, out)
    run = run.update(**launched)
    occupancy.name(run.record.id)
    assembled = watched(_assemble(opened, run.folder, option, rehearsal), run, listener)
    write_rendered(assembled.rendered, run.config_dir)
    refresh_caches(run, assembled, photos, out)
    plan = plan_run(opened, assembled, run.folder, environment, local, topology)
    launch.prepare(plan)
    where = f" on {topology.describe()}" if topology.processes > 1 else ""
    out.say(f"{'Continuing' if existing else 'Starting'} run {run.record.id}{where} in {run.folder}")
    return supervise(run, plan, _expected_modules(assembled, base), out, listener=listener, occupancy=occupancy)


def _join(
    opened: Project,
    topology: Topology,
    run_id: str | None,
    option: Sequence[str],
    *,
    rehearse: bool,
    dry_run: bool,
    out: Output,
) -> None:
    """The part of a machine that is not the first."""
    environment = whole_environment(opened)
    run = run_to_join(opened.runs_dir, topology, run_id, rehearse=rehearse, out=out)
    rehearsal = _rehearsal(opened) if rehearse else None
    assembled = _assemble(opened, run.folder, option, rehearsal)
    check_same(run, assembled)
    local = check_base(run.record.base, run.record.revision)
    plan = plan_run(opened, assembled, machine_folder(run, topology.rank), environment, local, topology)
    if dry_run:
        print_plan(plan, assembled, run.folder, run, out)
        return
    launch.prepare(plan)
    take_part(plan, run, topology.rank, out)


def _check_dataset(project: Project, processes: int, out: Output) -> DatasetReport:
    report = check_project(project, processes=processes, out=out)
    if not report.ok:
        out.result(report_text(report))
        raise UserError("The dataset has errors.", fix="Correct them as named, then run `fluxkit train` again.")
    return report


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
        },
    )


def _launched(assembled: Assembled, topology: Topology) -> dict[str, Any]:
    """What the run's record keeps of a launch."""
    config: Any = assembled.rendered.documents["config.json"]
    images = int(config.get("--train_batch_size", 1)) * int(config.get("--gradient_accumulation_steps", 1))
    return {
        "gpus": topology.gpus,
        "machines": topology.machines,
        "batch_size": images * topology.processes,
        "env": launch.masked(assembled.rendered.env),
    }


def _expected_modules(assembled: Assembled, base: str) -> int | None:
    config = transformer_config(base)
    document: Any = assembled.rendered.documents.get("lycoris_config.json")
    return expected_modules(config, document) if config and document else None
