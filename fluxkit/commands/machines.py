"""Training on several GPUs or machines: what was asked for, and the part of the machines that join a run.

Machine 0 keeps the run: it checks the photos, renders the config, watches, and proves the result. The others need the
same project folder at the same path (SimpleTuner itself wants it shared: machine 0 scans the photos and writes the
checkpoints, the others read them). They work in `machine-<rank>/` of the run's folder and read its config there.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from fluxkit.commands.assemble import Assembled, has_cuda
from fluxkit.commands.brake import Brake
from fluxkit.console import Output
from fluxkit.errors import TrainerError, UserError
from fluxkit.hardware import gpus as gpus_of_machine
from fluxkit.project.load import Project
from fluxkit.trainer import launch, runs
from fluxkit.trainer.progress import ProgressReader
from fluxkit.trainer.topology import Topology, check_gpus, plan_topology

JOIN_SECONDS = 600.0  # as long as machine 0's launcher waits for the others
_LOOK_SECONDS = 1.0
_OF_MACHINE_0 = frozenset({"--webhook_config"})  # fluxkit's own listener


def ask_topology(
    project: Project,
    *,
    gpus: int | None,
    machines: int | None,
    rank: int | None,
    address: str | None,
    rehearse: bool,
    existing: runs.Run | None,
) -> Topology:
    """The processes that were asked for; without `--gpus`, as many as the run that goes on had.

    Raises:
        UserError: the options don't fit together, or there are fewer GPUs.
    """
    use_cpu = not has_cuda(project)
    count = gpus or (existing.record.gpus if existing else 1)
    topology = plan_topology(gpus=count, machines=machines, rank=rank, address=address, use_cpu=use_cpu)
    if use_cpu and not rehearse and topology.processes > 1:
        raise UserError(
            "fluxkit sees no NVIDIA GPU here, and several processes on a CPU are for rehearsals only.",
            fix="`fluxkit doctor` says more about the GPU; or add --rehearse.",
        )
    check_gpus(topology, len(gpus_of_machine()))
    return topology


def run_to_join(runs_dir: Path, topology: Topology, run_id: str | None, *, rehearse: bool, out: Output) -> runs.Run:
    """The run that machine 0 has started, or starts in the next minutes.

    Args:
        runs_dir: the project's `runs/`.
        topology: this machine's.
        run_id: its id; None takes the newest that runs on that many machines.
        rehearse: whether it is a rehearsal.
        out: where to say that it waits.

    Raises:
        UserError: there is none, or it has other GPUs.
    """
    deadline = time.monotonic() + JOIN_SECONDS
    said = False
    while (run := _running(runs_dir, topology, run_id, rehearse)) is None:
        if time.monotonic() >= deadline:
            raise UserError(
                f"No run on {topology.machines} machines was started in {runs_dir}.",
                fix="Start machine 0 first; the project's folder must be the same one, shared, on all machines.",
            )
        if not said:
            out.say("Waiting for machine 0 to start the run")
            said = True
        time.sleep(_LOOK_SECONDS)
    if run.record.gpus != topology.gpus:
        raise UserError(
            f"Machine 0 trains with {run.record.gpus} {_processes(run.record.gpus)}, and {topology.gpus} were asked "
            "for here: each machine must have as many.",
            fix=f"--gpus {run.record.gpus}",
        )
    return run


def check_same(run: runs.Run, assembled: Assembled) -> None:
    """Refuse a config that is not machine 0's.

    Raises:
        UserError: this machine would render another one: other `-o` options, or another project.
    """
    different = []
    for name, document in assembled.rendered.documents.items():
        try:
            theirs = json.loads((run.config_dir / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            theirs = None
        if isinstance(theirs, dict) and isinstance(document, dict):
            different += _differing(theirs, document)
        elif theirs != document:
            different.append(name)
    if different:
        raise UserError(
            f"Machine 0 trains with other settings: {', '.join(different)}.",
            fix="Give the same -o options on every machine, with the project's folder at the same path.",
        )


def take_part(plan: launch.RunPlan, run: runs.Run, rank: int, out: Output) -> None:
    """Launch this machine's processes and wait for them; the result is machine 0's to prove.

    Raises:
        TrainerError: they failed.
        InterruptedByUser: Ctrl-C, SIGTERM, or the terminal was closed.
    """
    out.say(f"Taking part in run {run.record.id} as machine {rank}")
    log = plan.cwd / "logs" / "trainer.log"
    reader = ProgressReader(lambda stage: out.say(f"  {stage} …", style="dim"), lambda _: None)
    # A closing terminal or a kill takes the trainer along: it is in a session of its own, and would stay behind.
    with Brake(lambda: False).armed():
        code = launch.launch(plan, log=log, on_line=reader.feed)
    if code:
        raise TrainerError(f"The trainer of machine {rank} ended with exit code {code}.", fix=f"Its output: {log}")
    out.say(f"Machine {rank} is done. Machine 0 has the result and says whether it is whole.")


def machine_folder(run: runs.Run, rank: int) -> Path:
    """Where machine `rank` works."""
    return run.folder / f"machine-{rank}"


def _running(runs_dir: Path, topology: Topology, run_id: str | None, rehearse: bool) -> runs.Run | None:
    for run in reversed(runs.list_runs(runs_dir)):
        record = run.record
        wanted = record.id == run_id if run_id else record.rehearsal == rehearse
        if wanted and record.status == "running" and record.machines == topology.machines:
            return run
    return None


def _differing(theirs: Mapping[str, object], mine: Mapping[str, object]) -> list[str]:
    names = [name for name in dict.fromkeys((*theirs, *mine)) if name not in _OF_MACHINE_0]
    return [
        f"{name} ({theirs.get(name, 'not set')}, here {mine.get(name, 'not set')})"
        for name in names
        if theirs.get(name) != mine.get(name)
    ]


def _processes(count: int) -> str:
    return "process" if count == 1 else "processes"
