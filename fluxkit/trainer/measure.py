"""What a run takes, measured: the probe that is launched with it, and what its records say.

The probe (`_shims/measure.py`) writes PyTorch's peaks by phase; the whole card and the host's memory are watched from
outside (`hardware.MemoryWatch`).
"""

import json
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fluxkit.trainer.launch import RunPlan
from fluxkit.trainer.shims import write_shims

GIB = 2**30
# In the order of a run; `training_step` is recorded by the picture's edge too, as `training_step_1024`.
PHASES = ("text_encoding", "vae_caching", "load", "training_step", "validation_image", "checkpoint")


@dataclass(frozen=True)
class Peak:
    """The most that PyTorch held in a phase, in GiB; None without a GPU.

    Args:
        allocated: in tensors: what the phase needs.
        reserved: from the driver: what it took, some of which it could have given back.
    """

    allocated: float | None = None
    reserved: float | None = None


@dataclass(frozen=True)
class Measurement:
    """What a measured run took.

    Args:
        phases: the peaks by phase.
        seconds_per_step: the median by the picture's edge in pixels; the first step of each is left out.
        batch_size: pictures in a step; 0 before one was seen.
        steps: how many were done.
        ended_in: the phase in which the process ended; `finish` where the final weights were written.
        host_gib: the most memory that the trainer's processes held, mapped files left out, in GiB; None where unseen.
        anonymous_gib: the part of the training process's that no file backs, at a phase's end; None likewise.
        card_gib: the most that was in use on the card, contexts and other programs included; None without a GPU.
    """

    phases: Mapping[str, Peak] = field(default_factory=dict)
    seconds_per_step: Mapping[int, float] = field(default_factory=dict)
    batch_size: int = 0
    steps: int = 0
    ended_in: str = ""
    host_gib: float | None = None
    anonymous_gib: float | None = None
    card_gib: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the trainer had written its final weights: what came after was its end."""
        return self.ended_in == "finish"

    @property
    def allocated_gib(self) -> float | None:
        """The most in tensors over all phases; None without a GPU."""
        return max((peak.allocated for peak in self.phases.values() if peak.allocated is not None), default=None)

    @property
    def reserved_gib(self) -> float | None:
        """The most taken from the driver over all phases; None without a GPU."""
        return max((peak.reserved for peak in self.phases.values() if peak.reserved is not None), default=None)


def with_probe(
    plan: RunPlan, folder: Path, records: Path, *, cap_gib: float | None = None, turn: Path | None = None
) -> RunPlan:
    """The same launch, measured.

    Args:
        plan: the launch, with its own shims.
        folder: for the shims; a folder of their own.
        records: the file that the probe appends to.
        cap_gib: what PyTorch's allocator may take, in GiB.
        turn: where runs that started side by side take turns: it writes `<turn>.train` and waits for
            `<turn>.train.go` (`Turn` in `_shims/measure.py`).
    """
    own = tuple(filter(None, plan.env.get("FLUXKIT_SHIMS", "").split(",")))
    shims = write_shims(folder, (*own, "measure"))
    path = plan.env.get("PYTHONPATH", "").split(os.pathsep)
    behind = path[1:] if own else path  # the first one held the plan's own shims, which are in `folder` too
    shims["PYTHONPATH"] = os.pathsep.join(filter(None, (shims["PYTHONPATH"], *behind)))
    measure = {"FLUXKIT_MEASURE_FILE": str(records.absolute())}
    if cap_gib is not None:
        measure["FLUXKIT_MEASURE_CAP_GIB"] = str(cap_gib)
    if turn is not None:
        measure["FLUXKIT_MEASURE_TURN"] = str(turn.absolute())
    return replace(plan, env={**plan.env, **shims, **measure})


def read_records(path: Path) -> Measurement:
    """What the probe wrote, put together; what is missing or cut short is left out."""
    ended: list[dict[str, Any]] = []
    last = ""
    for record in _records(path):
        last = str(record["phase"])
        if "end" in record:
            ended.append(record)
    steps = [record for record in ended if record["phase"] == "training_step" and "edge" in record]
    anonymous = [record["anonymous"] for record in ended if "anonymous" in record]
    return Measurement(
        phases=_peaks(ended),
        seconds_per_step=_pace(ended),
        batch_size=max((int(step["batch"]) for step in steps), default=0),
        steps=sum(1 for record in ended if record["phase"] == "training_step" and not record.get("last")),
        ended_in=last,
        anonymous_gib=max(anonymous) / GIB if anonymous else None,
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the end of a process that was killed
            continue
        if isinstance(record, dict) and "phase" in record:
            yield record


def _peaks(ended: list[dict[str, Any]]) -> dict[str, Peak]:
    found: dict[str, Peak] = {}
    for record in ended:
        for name in _names(record):
            peak = found.get(name, Peak())
            found[name] = Peak(
                _larger(peak.allocated, record.get("allocated")), _larger(peak.reserved, record.get("reserved"))
            )
    order = [*PHASES, *sorted(found)]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0])))


def _names(record: dict[str, Any]) -> Iterator[str]:
    yield str(record["phase"])
    if record["phase"] == "training_step" and "edge" in record:
        yield f"training_step_{record['edge']}"


def _larger(known: float | None, value: Any) -> float | None:
    if not isinstance(value, int | float):
        return known
    return max(known or 0.0, value / GIB)


def _pace(ended: list[dict[str, Any]]) -> dict[int, float]:
    """Seconds from one step's end to the next one's, where nothing but the step came between."""
    seconds: dict[int, list[float]] = {}
    last: float | None = None
    for record in ended:
        if record["phase"] == "training_step" and not record.get("last"):
            if last is not None and "edge" in record:
                seconds.setdefault(int(record["edge"]), []).append(record["end"] - last)
            last = float(record["end"])
        elif record["phase"] != "between_steps":
            last = None  # a validation image or a checkpoint is not the step's time
    # The first of each size tunes kernels and compiles.
    return {edge: round(statistics.median(each[1:]), 3) for edge, each in sorted(seconds.items()) if len(each) > 1}
