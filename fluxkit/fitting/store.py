"""What was measured on this machine, kept in the user's cache: by machine and by settings."""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import cache_dir, read_json, write_json
from fluxkit.hardware import Gpu
from fluxkit.trainer.measure import Measurement

_VERSION = 1


@dataclass(frozen=True)
class StoredMeasurement:
    """A short run on this machine.

    Args:
        date: ISO 8601.
        gpu: the card's name.
        release: of SimpleTuner.
        ok: whether it did every step.
        ended_in: the phase in which it ended.
        allocated_gib: PyTorch's peak by phase.
        seconds_per_step: by the picture's edge in pixels.
        host_gib: the most memory of the trainer's processes, mapped files left out.
        card_gib: the most in use on the card.
    """

    date: str
    gpu: str
    release: str
    ok: bool
    ended_in: str
    allocated_gib: Mapping[str, float]
    seconds_per_step: Mapping[int, float]
    host_gib: float | None
    card_gib: float | None


def settings_key(settings: Mapping[str, Any], gpu: Gpu, release: str) -> str:
    """A name for settings on a machine: another card, release or setting has another one."""
    text = json.dumps([_VERSION, gpu.name, gpu.memory_bytes, release, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stored(key: str) -> StoredMeasurement | None:
    """What was kept under that name; None where there is nothing that can be read."""
    path = _path(key)
    if not path.is_file():
        return None
    try:
        data = read_json(path)
        pace = {int(edge): float(seconds) for edge, seconds in data.pop("seconds_per_step").items()}
        return StoredMeasurement(**data, seconds_per_step=pace)
    except (UserError, TypeError, ValueError, KeyError, AttributeError):  # a newer fluxkit's, or damaged: measure again
        return None


def keep(key: str, measurement: Measurement, *, gpu: Gpu, release: str, ok: bool) -> StoredMeasurement:
    """Keep a measurement under that name; a later one replaces it.

    Raises:
        UserError: it can't be written.
    """
    kept = StoredMeasurement(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        gpu=gpu.name,
        release=release,
        ok=ok,
        ended_in=measurement.ended_in,
        allocated_gib={
            name: round(peak.allocated, 2) for name, peak in measurement.phases.items() if peak.allocated is not None
        },
        seconds_per_step=measurement.seconds_per_step,
        host_gib=measurement.host_gib,
        card_gib=measurement.card_gib,
    )
    write_json(_path(key), asdict(kept))
    return kept


def _path(key: str) -> Path:
    return cache_dir() / "fit" / f"{key}.json"
