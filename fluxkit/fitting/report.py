"""What `fluxkit fit` prints, and its JSON document."""

from collections.abc import Iterator
from typing import Any

from fluxkit.fitting.model import Change, Fit, Shortfall

_GIB = 2**30
_SURETY = {
    "measured here": "measured on this machine with these settings",
    "measured profile": "measured with these settings",
    "estimate": "an estimate from what was measured",
    "unknown": "not known: these settings were never measured",
}


def verdict(fit: Fit) -> bool | None:
    """Whether it fits; None where nobody knows."""
    if fit.shortfalls:
        return False
    gpu = fit.machine.gpu
    if gpu is None or fit.gpu.gib is None or fit.gpu.surety in ("estimate", "unknown"):
        return None
    return fit.gpu.gib <= gpu.free_bytes / _GIB


def report_text(fit: Fit) -> str:
    """The report for people."""
    return "\n".join(_lines(fit))


def shortfall_text(shortfall: Shortfall) -> Iterator[str]:
    """What does not fit, and what would, for people."""
    yield f"✗ {shortfall.what}: {shortfall.message}"
    if not shortfall.changes:
        yield "    Nothing that was measured would fit."
    for number, change in enumerate(shortfall.changes, 1):
        yield f"    {number}. {change.title} {change.cost}"


def report_dict(fit: Fit) -> dict[str, Any]:
    """The report for programs; sizes in GiB, or bytes where the key says so."""
    gpu, peak = fit.machine.gpu, fit.gpu.peak
    return {
        "version": 1,
        "fits": verdict(fit),
        "profile": fit.plan.profile.name,
        "resolutions": list(fit.plan.resolutions),
        "batch_size": fit.plan.batch_size,
        "adapter_parameters": fit.plan.adapter_parameters,
        "gpu": {
            "name": gpu.name if gpu else None,
            "total_gib": round(gpu.memory_gib, 2) if gpu else None,
            "free_gib": round(gpu.free_bytes / _GIB, 2) if gpu else None,
            "needs_gib": _rounded(fit.gpu.gib),
            "needs_at_least_gib": _rounded(fit.gpu.at_least_gib) or None,
            "known": fit.gpu.surety,
            "peak_phase": peak.phase if peak else None,
            "phases": {need.phase: _rounded(need.gib) for need in fit.gpu.phases},
        },
        "host": {
            "needs_gib": _rounded(fit.host_gib),
            "total_gib": round(fit.machine.memory.total / _GIB, 2),
            "available_gib": round(fit.machine.memory.available / _GIB, 2),
            "swap_gib": round(fit.machine.memory.swap / _GIB, 2),
            "limit_gib": _rounded(fit.machine.limit / _GIB if fit.machine.limit else None),
        },
        "exactness": _exactness(fit),
        "disk": [{"use": need.use, "what": need.what, "bytes": need.bytes} for need in fit.disk],
        "free_bytes": {use: disk.free for use, disk in fit.machine.disks.items()},
        "shortfalls": [
            {"what": one.what, "message": one.message, "changes": [_change(change) for change in one.changes]}
            for one in fit.shortfalls
        ],
        "notes": list(fit.notes),
    }


def _lines(fit: Fit) -> Iterator[str]:
    plan = fit.plan
    sizes = ", ".join(map(str, plan.resolutions))
    yield f"Profile {plan.profile.name}, resolutions {sizes}, batch size {plan.batch_size}"
    yield from _gpu_lines(fit)
    memory = fit.machine.memory
    limit = f", {fit.machine.limit / _GIB:.0f} GiB for this container" if fit.machine.limit else ""
    has = f"{memory.total / _GIB:.0f} GiB here, {memory.available / _GIB:.0f} available{limit}"
    yield f"RAM: {f'{fit.host_gib:.0f} GiB' if fit.host_gib is not None else 'not known'}; {has}"
    yield f"Exactness: {_exactness_text(fit)}"
    for need in fit.disk:
        free = fit.machine.disks[need.use].free if need.use in fit.machine.disks else 0
        yield f"Disk: {need.bytes / 1e9:.1f} GB for {need.what}; {free / 1e9:.0f} GB free"
    yield from (f"  {note}" for note in fit.notes)
    for shortfall in fit.shortfalls:
        yield from shortfall_text(shortfall)
    answer = {True: "It fits.", False: "It does not fit.", None: "Whether it fits is not known for sure."}
    yield answer[verdict(fit)]


def _gpu_lines(fit: Fit) -> Iterator[str]:
    need, gpu = fit.gpu, fit.machine.gpu
    has = f"; {gpu.name}: {gpu.memory_gib:.1f} GiB, {gpu.free_bytes / _GIB:.1f} free" if gpu else ""
    yield f"GPU memory: {f'{need.gib:.1f} GiB' if need.gib is not None else 'not known'}, {_SURETY[need.surety]}{has}"
    for phase in need.phases:
        edge = f" at {phase.edge}" if phase.edge else ""
        most = " ← the most" if phase is need.peak else ""
        yield f"  {phase.phase.replace('_', ' ')}{edge}: {phase.gib:.1f}{most}"
    if need.phases:
        yield f"  a CUDA context: {need.context_gib:.2f}, on top"


def _exactness_text(fit: Fit) -> str:
    found = fit.plan.profile.fidelity
    if fit.plan.has_other_precision:
        return "not known: nobody measured this base_model_precision with fluxkit"
    if found is None:
        return "the base model in bf16, nothing rounded"
    least = found.bounds[1]
    what = f"the adapter's gradients have a cosine of {found.gradient_cosine:.3f} with bf16's"
    asked = f"{least:g} is asked for" if found.within else f"below the {least:g} that is asked for: docs/profiles.md"
    return f"{found.precision}, {found.bits} bits; {what} ({asked})"


def _exactness(fit: Fit) -> dict[str, Any] | None:
    found = fit.plan.profile.fidelity
    if found is None or fit.plan.has_other_precision:
        return None
    return {
        "precision": found.precision,
        "bits": found.bits,
        "block_error": found.block_error,
        "gradient_cosine": found.gradient_cosine,
        "within_bounds": found.within,
    }


def _change(change: Change) -> dict[str, str]:
    return {"change": change.title, "cost": change.cost}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
