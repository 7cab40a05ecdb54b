"""Whether one SimpleTuner release goes on from another's checkpoints: as far as it was tried, nothing guessed."""

import tomllib
from dataclasses import dataclass
from functools import cache

from fluxkit.resources import resource


@dataclass(frozen=True)
class Handover:
    """What came of it when a run of one release was continued with another.

    Args:
        old: the release that made the checkpoint.
        new: the release that was to go on from it.
        goes_on: whether it did.
        seen: the day of the trial, ISO 8601.
        reason: why not, in the trainer's words.
    """

    old: str
    new: str
    goes_on: bool
    seen: str
    reason: str = ""


def handover(old: str, new: str) -> Handover | None:
    """The trial of that pair; None where there was none."""
    return _trials().get((old, new))


def describe(old: str, new: str) -> str:
    """What is known of that pair, a clause for people."""
    trial = handover(old, new)
    if trial is None:
        return f"whether {new} goes on from checkpoints of {old} was not tried"
    if trial.goes_on:
        return f"{new} was seen to go on from checkpoints of {old} (a tiny model on a CPU, {trial.seen})"
    return f"{new} was seen not to go on from checkpoints of {old}: {trial.reason}"


@cache
def _trials() -> dict[tuple[str, str], Handover]:
    text = resource("third_party", "simpletuner", "resumes.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["resume"]
    trials = [Handover(row["from"], row["to"], row["goes_on"], row["seen"], row.get("reason", "")) for row in rows]
    return {(trial.old, trial.new): trial for trial in trials}
