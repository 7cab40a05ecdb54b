"""VRAM classes: settings that were measured to fit a card, as data in `profiles/`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fluxkit.errors import UserError
from fluxkit.resources import resource
from fluxkit.textmatch import did_you_mean

# Classes that the design names and nobody has measured: a guess here is an out-of-memory after an hour.
NOT_MEASURED = ("16gb", "48gb")


@dataclass(frozen=True)
class Profile:
    """Settings known, by measurement, to fit a VRAM class.

    Args:
        name: the class, e.g. `24gb`.
        options: SimpleTuner options, without `--`.
        lycoris: LyCORIS settings.
        env: environment of the trainer's process.
        dataset: keys of every image backend.
        measured: what proves it: figures, machine, date.
        shims: repairs of the trainer's libraries, by name, that the figures were measured with.
    """

    name: str
    options: Mapping[str, Any]
    lycoris: Mapping[str, Any]
    env: Mapping[str, str]
    dataset: Mapping[str, Any]
    measured: Mapping[str, Any]
    shims: tuple[str, ...] = ()


def profile_names() -> tuple[str, ...]:
    """The measured classes, smallest card first."""
    names = (path.stem for path in resource("profiles").glob("*.toml"))
    return tuple(sorted(names, key=lambda name: (len(name), name)))


def load_profile(name: str) -> Profile:
    """Load a profile.

    Raises:
        UserError: no such profile, or one that has not been measured yet.
    """
    known = profile_names()
    if name not in known:
        choices = ", ".join(known)
        if name in NOT_MEASURED:
            raise UserError(
                f'The profile "{name}" has not been measured yet.', fix=f"Take the next smaller one of: {choices}."
            )
        raise UserError(
            f'There is no profile "{name}".{did_you_mean(name.lower(), known)}',
            fix=f"Set [train] profile to one of: {choices}.",
        )
    data = tomllib.loads(resource("profiles", f"{name}.toml").read_text(encoding="utf-8"))
    shims = tuple(data.pop("shims", ()))
    return Profile(name=name, shims=shims, **data)
