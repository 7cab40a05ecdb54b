"""VRAM classes: settings that were measured to fit a card, as data in `profiles/`."""

import datetime as dt
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.version import Version

from fluxkit.errors import UserError
from fluxkit.rendering.fidelity import Fidelity, read_fidelity
from fluxkit.resources import resource
from fluxkit.textmatch import did_you_mean

CLASSES = ("12gb", "16gb", "24gb", "48gb")  # those that the design names
CONTEXT_GIB = 0.75  # a CUDA context, beyond what PyTorch reserves (H200, 2026-11-22)
SETTINGS = ("options", "lycoris", "env", "dataset")
_REQUIRED = (
    "settings", "date", "gpu", "simpletuner", "cap_gib", "batch_size", "host_gib",
    "peak_allocated_gib", "peak_reserved_gib", "seconds_per_step", "allocated_gib", "reserved_gib",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What proves a profile: one run of the real trainer on a full-size FLUX.1-dev, with the allocator capped.

    Args:
        settings: `settings_digest` of what was measured.
        date: when.
        gpu: the card.
        simpletuner: the release.
        cap_gib: what PyTorch's allocator was allowed, in GiB: what a card of the class leaves it.
        batch_size: pictures in a step.
        host_gib: the most memory that the trainer's processes held, mapped files left out, in GiB.
        peak_allocated_gib: the most in tensors, over all phases.
        peak_reserved_gib: the most taken from the driver, over all phases.
        seconds_per_step: by the picture's edge in pixels.
        allocated_gib: by phase (`trainer.measure.PHASES`, and `training_step_1024`); what was not recorded is absent.
        reserved_gib: likewise.
        card_gib: the most in use on the whole card, where it was recorded.
    """

    settings: str
    date: dt.date
    gpu: str
    simpletuner: str
    cap_gib: float
    batch_size: int
    host_gib: float
    peak_allocated_gib: float
    peak_reserved_gib: float
    seconds_per_step: Mapping[int, float]
    allocated_gib: Mapping[str, float]
    reserved_gib: Mapping[str, float]
    card_gib: float | None = None


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile sets; without a measurement it is a candidate for one.

    Args:
        name: the class, e.g. `24gb`, or `24gb-fast`: another profile for cards of that class.
        options: SimpleTuner options, without `--`.
        lycoris: LyCORIS settings.
        env: environment of the trainer's process.
        dataset: keys of every image backend.
        shims: repairs of the trainer's libraries, by name, that its figures are measured with.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    lycoris: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    shims: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile(ProfileSettings):
    """Settings known, by measurement, to fit a VRAM class.

    Args:
        measured: what proves it.
        fidelity: how exact its base model is; None where nothing is quantized.
        since: the first SimpleTuner release that has its options; empty for every one.
        before: the profile that stands in for it with older releases.
    """

    measured: Measured
    fidelity: Fidelity | None = None
    since: str = ""
    before: str = ""

    @property
    def card_gib(self) -> float:
        """What it was measured to take of a card, a CUDA context included, in GiB."""
        return self.measured.peak_reserved_gib + CONTEXT_GIB


def profile_names() -> tuple[str, ...]:
    """The measured profiles, smallest card first; a class's own one comes before its others (`24gb-fast`)."""
    return tuple(sorted((path.stem for path in resource("profiles").glob("*.toml")), key=_order))


def class_profiles() -> tuple[str, ...]:
    """One for each measured class, smallest card first: what is chosen where nobody names one."""
    return tuple(name for name in profile_names() if name == vram_class(name))


def not_measured() -> tuple[str, ...]:
    """Classes that nobody has measured: a guess here is an out-of-memory after an hour."""
    return tuple(name for name in CLASSES if name not in profile_names())


def vram_class(name: str) -> str:
    """The class of a profile: `24gb` of `24gb-fast`."""
    return name.partition("-")[0]


def _order(name: str) -> tuple[int, str]:
    digits = vram_class(name).removesuffix("gb")
    return int(digits) if digits.isdigit() else 0, name


def load_profile(name: str, release: str | None = None) -> Profile:
    """Load a profile.

    Args:
        name: of the profile.
        release: the pinned SimpleTuner release. One that is too old for the profile gets the one that stands in for it.

    Raises:
        UserError: no such profile, or one that has not been measured yet, or not with these settings.
    """
    known = profile_names()
    if name not in known:
        choices = ", ".join(known)
        if name in not_measured():
            raise UserError(
                f'The profile "{name}" has not been measured yet.', fix=f"Take the next smaller one of: {choices}."
            )
        raise UserError(
            f'There is no profile "{name}".{did_you_mean(name.lower(), known)}',
            fix=f"Set [train] profile to one of: {choices}.",
        )
    profile = read_profile(resource("profiles", f"{name}.toml"))
    if release is None or not profile.since or Version(release) >= Version(profile.since):
        return profile
    return load_profile(profile.before, release)


def smaller_stand_in(profile: Profile, memory: int) -> Profile | None:
    """The profile that stands in for another, where it fits so much RAM and swap, in bytes: it also takes less."""
    other = load_profile(profile.before) if profile.before else None
    return other if other and other.measured.host_gib * 2**30 <= memory else None


def read_profile(path: Path) -> Profile:
    """Read a profile's file; one without a measurement of exactly its settings is refused.

    Raises:
        UserError: it has no measurement, an incomplete one, or one that is older than its settings; or nobody measured
            how exact its base model is.
    """
    name = path.stem
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    measured = data.get("measured")
    fix = f"Measure it on a GPU: `python benchmarks/profiles.py --write {name}` in fluxkit's repository."
    if not measured:
        raise UserError(f'The profile "{name}" has no measurement: it is a guess.', fix=fix)
    missing = [key for key in _REQUIRED if key not in measured]
    if missing:
        raise UserError(f'The measurement of the profile "{name}" lacks {", ".join(missing)}.', fix=fix)
    if measured["settings"] != settings_digest(data):
        raise UserError(
            f'The settings of the profile "{name}" were changed after they were measured ({measured["date"]}).', fix=fix
        )
    pace = {int(edge): float(seconds) for edge, seconds in measured["seconds_per_step"].items()}
    known = {key: measured[key] for key in (*_REQUIRED, "card_gib") if key in measured}
    return Profile(
        name=name,
        shims=tuple(data.get("shims", ())),
        measured=Measured(**{**known, "seconds_per_step": pace}),
        fidelity=read_fidelity(name, data),
        since=data.get("since", ""),
        before=data.get("before", ""),
        **{key: data[key] for key in SETTINGS},
    )


def settings_digest(data: Mapping[str, Any]) -> str:
    """A hash of everything in a profile that changes what the trainer does: its tables of settings, and its shims."""
    settings = {key: data.get(key, {}) for key in SETTINGS} | {"shims": sorted(data.get("shims", ()))}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
