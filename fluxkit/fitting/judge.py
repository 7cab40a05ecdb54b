"""Needs against what is there: what is known not to fit, and what would."""

from collections.abc import Iterator

from fluxkit.fitting.adapter import CHECKPOINT_BYTES, MEASURED_PARAMETERS
from fluxkit.fitting.advice import close_programs, disk_changes, gpu_changes, memory_changes
from fluxkit.fitting.memory import gpu_need
from fluxkit.fitting.model import DiskNeed, Fit, GpuNeed, Machine, Shortfall, TrainingPlan
from fluxkit.fitting.store import StoredMeasurement

_GIB = 2**30


def judge(plan: TrainingPlan, machine: Machine, stored: StoredMeasurement | None = None) -> Fit:
    """Whether a training fits a machine.

    Args:
        plan: the training.
        machine: what is here.
        stored: these settings, measured on this machine.
    """
    need = gpu_need(plan, stored)
    host = stored.host_gib if stored else None if plan.unmeasured else plan.profile.measured.host_gib
    disk = disk_needs(plan)
    found = [*_gpu(plan, machine, need), *_memory(plan, machine, host), *_disk(plan, machine, disk)]
    shortfalls = tuple(one for one in found if isinstance(one, Shortfall))
    notes = (*need.notes, *(one for one in found if isinstance(one, str)))
    return Fit(plan, machine, need, host, disk, shortfalls, notes)


def disk_needs(plan: TrainingPlan) -> tuple[DiskNeed, ...]:
    """What will be written: caches, checkpoints, and the base model where it is not there yet."""
    one = (plan.adapter_parameters or MEASURED_PARAMETERS) * CHECKPOINT_BYTES
    needs = [
        DiskNeed("the project", f"{plan.checkpoints} checkpoints", plan.checkpoints * one),
        DiskNeed("the project", "encoded photos and captions", plan.cache_bytes),
        DiskNeed("the model", "the base model", plan.model_bytes),
    ]
    return tuple(need for need in needs if need.bytes)


def _gpu(plan: TrainingPlan, machine: Machine, need: GpuNeed) -> Iterator[Shortfall | str]:
    gpu = machine.gpu
    if gpu is None:
        yield "No NVIDIA GPU is seen here, so nothing is said about its memory."
        return
    free = gpu.free_bytes / _GIB
    what = "GPU memory"
    if need.ran_out_in:
        message = f"These settings ran out of memory on this {gpu.name} ({need.ran_out_in.replace('_', ' ')})."
        yield Shortfall(what, message, gpu_changes(plan, gpu.memory_gib))
    elif need.at_least_gib > gpu.memory_gib:
        yield Shortfall(
            what, f"{_takes(need)}; this {gpu.name} has {gpu.memory_gib:.1f}.", gpu_changes(plan, gpu.memory_gib)
        )
    elif need.at_least_gib > free:
        message = f"{_takes(need)}; {free:.1f} of the {gpu.memory_gib:.1f} GiB of this {gpu.name} are free."
        yield Shortfall(what, message, (close_programs(gpu, need.at_least_gib - free), *gpu_changes(plan, free))[:3])
    elif need.gib is not None and need.gib > free:
        yield f"It may run out of GPU memory: about {need.gib:.1f} GiB are expected, {free:.1f} are free."
    if need.surety in ("estimate", "unknown"):
        yield "`fluxkit fit --measure` trains 3 real steps and knows."


def _takes(need: GpuNeed) -> str:
    peak = max(need.phases, key=lambda one: one.at_least)
    edge = f" at {peak.edge}" if peak.edge else ""
    return f"The {peak.phase.replace('_', ' ')}{edge} was measured to take {need.at_least_gib:.1f} GiB"


def _memory(plan: TrainingPlan, machine: Machine, host: float | None) -> Iterator[Shortfall | str]:
    if host is None:
        yield "How much RAM these settings take is not known."
        return
    memory = machine.memory
    total, available = memory.total, memory.available
    if machine.limit is not None:
        total, available = min(total, machine.limit), min(available, machine.limit)
    swap = 0 if machine.limit is not None else memory.swap  # a container's limit counts for itself
    if host * _GIB > total + swap:
        kind = "this container may take" if machine.limit is not None and machine.limit < memory.total else "there are"
        message = f"The trainer was measured to hold {host:.0f} GiB of RAM; {kind} {(total + swap) / _GIB:.0f} GiB."
        yield Shortfall("RAM", message, memory_changes(plan, (total + swap) / _GIB))
    elif host * _GIB > available + swap:
        have = f"{available / _GIB:.0f} are available"
        yield f"RAM is short now: about {host:.0f} GiB are needed, {have}. Close programs before you train."


def _disk(plan: TrainingPlan, machine: Machine, needs: tuple[DiskNeed, ...]) -> Iterator[Shortfall]:
    for device in sorted({disk.device for disk in machine.disks.values()}):
        uses = [use for use, disk in machine.disks.items() if disk.device == device]
        disk = machine.disks[uses[0]]
        mine = [need for need in needs if need.use in uses]
        needed = sum(need.bytes for need in mine)
        if needed > disk.free:
            parts = ", ".join(f"{need.what} {need.bytes / 1e9:.1f} GB" for need in mine)
            free = f"{disk.free / 1e9:.1f} are free at {disk.folder}"
            message = f"{needed / 1e9:.1f} GB are still to be written ({parts}); {free}."
            yield Shortfall("disk", message, disk_changes(plan, mine, needed - disk.free))
