"""Candidates for the VRAM profiles, what they were measured to take, and where that is written.

Nothing here touches a GPU: `benchmarks/profiles.py` runs the candidates and keeps each result as a line of JSON.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from fluxkit.errors import UserError
from fluxkit.files import write_text
from fluxkit.rendering.profiles import ProfileSettings, read_profile, settings_digest
from fluxkit.resources import resource
from fluxkit.trainer.measure import PHASES, Measurement

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LEAST_FREE = 0.05  # of the cap
_TABLES = ("options", "lycoris", "env", "dataset")


@dataclass(frozen=True)
class Candidate:
    """Settings to measure.

    Args:
        vram: the VRAM class, e.g. `24gb`.
        why: what it is there to find out.
        cap_gib: what PyTorch's allocator may take.
        settings: the settings, named after the candidate.
        baseline: whether the others are compared with it.
        profile: the profile that its measurement proves; the class's by default.
    """

    vram: str
    why: str
    cap_gib: float
    settings: ProfileSettings
    baseline: bool = False
    profile: str = ""

    @property
    def digest(self) -> str:
        """As a profile with these settings would have."""
        return settings_digest(_settings_dict(self.settings))


@dataclass(frozen=True)
class Result:
    """What a candidate took; one line of the results.

    Args:
        vram: the VRAM class.
        name: the candidate.
        digest: of its settings.
        date: ISO 8601.
        gpu: the card.
        simpletuner: the release.
        cap_gib: what the allocator was allowed.
        ok: whether every step was done.
        reason: why not.
        ended_in: the phase in which the run ended.
        batch_size: pictures in a step.
        seconds_per_step: by edge.
        allocated_gib: by phase.
        reserved_gib: by phase.
        host_gib: the most of the trainer's processes.
        anonymous_gib: the training process's own, without files.
        card_gib: the most in use on the card.
        run_seconds: the whole run.
        baseline: whether the others are compared with it.
        shims: repairs that it was launched with; empty in results of 2026-11-24, from before they were kept.
        run: when the benchmark was started, ISO 8601; results of one run, on one machine, are compared.
    """

    vram: str
    name: str
    digest: str
    date: str
    gpu: str
    simpletuner: str
    cap_gib: float | None
    ok: bool
    reason: str = ""
    ended_in: str = ""
    batch_size: int = 0
    seconds_per_step: Mapping[int, float] = field(default_factory=dict)
    allocated_gib: Mapping[str, float] = field(default_factory=dict)
    reserved_gib: Mapping[str, float] = field(default_factory=dict)
    host_gib: float | None = None
    anonymous_gib: float | None = None
    card_gib: float | None = None
    run_seconds: float = 0.0
    baseline: bool = False
    shims: tuple[str, ...] = ()
    run: str = ""

    @property
    def reserved(self) -> float | None:
        """The most over all phases."""
        return max(self.reserved_gib.values(), default=None)

    @property
    def has_room(self) -> bool:
        """Whether it ended in order with 5 % of the cap left."""
        known = self.ok and self.reserved is not None and self.cap_gib is not None
        return known and self.reserved <= self.cap_gib * (1 - LEAST_FREE)  # type: ignore[operator]

    def per_picture(self, edge: int) -> float | None:
        """Seconds for each picture trained at that edge."""
        seconds = self.seconds_per_step.get(edge)
        return seconds / self.batch_size if seconds and self.batch_size else None


def load_candidates(path: Path) -> list[Candidate]:
    """Read the candidates; a profile's settings are laid under those that ask for them."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    found = []
    for entry in data["candidate"]:
        vram, name = entry["class"], entry["name"]
        below: dict[str, Any] = {}
        if source := entry.get("settings"):
            profile = vram if source == "profile" else source
            below = tomllib.loads(resource("profiles", f"{profile}.toml").read_text(encoding="utf-8"))
        tables = {key: {**below.get(key, {}), **entry.get(key, {})} for key in _TABLES}
        shims = tuple(entry.get("shims", below.get("shims", ())))
        settings = ProfileSettings(name=name, shims=shims, **tables)
        cap = float(data["class"][vram]["cap_gib"])
        found.append(
            Candidate(vram, entry["why"], cap, settings, bool(entry.get("baseline")), entry.get("profile", vram))
        )
    return found


def result_of(candidate: Candidate, measurement: Measurement, **more: Any) -> Result:
    """A measurement as a line of the results."""
    peaks = measurement.phases
    return Result(
        vram=candidate.vram,
        name=candidate.settings.name,
        digest=candidate.digest,
        baseline=candidate.baseline,
        ended_in=measurement.ended_in,
        batch_size=measurement.batch_size,
        seconds_per_step=dict(measurement.seconds_per_step),
        allocated_gib={name: round(p.allocated, 2) for name, p in peaks.items() if p.allocated is not None},
        reserved_gib={name: round(p.reserved, 2) for name, p in peaks.items() if p.reserved is not None},
        host_gib=_rounded(measurement.host_gib),
        anonymous_gib=_rounded(measurement.anonymous_gib),
        card_gib=_rounded(measurement.card_gib),
        **more,
    )


def append_result(path: Path, result: Result) -> None:
    """Keep a result; a later one of the same candidate and settings is taken instead of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read_results(path: Path) -> list[Result]:
    """The newest result of each candidate, in the order in which they were first measured."""
    found: dict[tuple[str, str], Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        data = json.loads(line)
        pace = {int(edge): seconds for edge, seconds in data.pop("seconds_per_step").items()}
        data["shims"] = tuple(data.get("shims", ()))
        result = Result(**data, seconds_per_step=pace)
        found[result.vram, result.name] = result
    return list(found.values())


def table(results: Iterable[Result]) -> str:
    """The results in Markdown, a table for each card and class."""
    groups: dict[tuple[str, str, float | None, str], list[Result]] = {}
    for one in sorted(results, key=lambda one: (len(one.vram), one.vram)):
        groups.setdefault((one.vram, one.gpu, one.cap_gib, one.simpletuner), []).append(one)
    pieces = []
    for (vram, gpu, cap, release), group in groups.items():
        bases = [one for one in group if one.baseline and one.seconds_per_step]
        base = next((one for one in bases if one.shims), next(iter(bases), None))
        head = f"### {vram}: {gpu or 'CPU'}, SimpleTuner {release}, allocator capped at {cap} GiB"
        columns = (
            "| candidate | fits with 5 % left | allocated / reserved | of the card | 512 / 1024, s/step | batch | "
        )
        columns += "s/picture at 1024 | RAM | date |"
        rows = [_row(one, base) for one in group]
        pieces.append("\n".join([head, "", columns, "|" + "---|" * 9, *rows]))
    return "\n\n".join(pieces)


def _row(one: Result, base: Result | None) -> str:
    where = one.ended_in.replace("_", " ") or "start"
    left = "too little left" if one.reserved is not None else "not measured: no GPU"
    fits = "yes" if one.has_room else left if one.ok else f"no ({where}): {one.reason[:80]}"
    per = one.per_picture(1024)
    # Machines of one kind differ, and so do times of before and after `no_tracing`.
    same = base is not None and one.run == base.run != "" and bool(base.shims) == bool(one.shims)
    beside = base.per_picture(1024) if base and base is not one and same else None
    times = f" ({beside / per:.2f}×)" if per and beside else ""
    cells = [
        f"{one.name}{' (compared with)' if one.baseline else ''}{'' if one.shims else ' †'}",
        fits,
        f"{_cell(max(one.allocated_gib.values(), default=None))} / {_cell(one.reserved)}",
        _cell(one.card_gib),
        f"{_cell(one.seconds_per_step.get(512))} / {_cell(one.seconds_per_step.get(1024))}",
        str(one.batch_size or "–"),
        f"{_cell(per)}{times}",
        _cell(one.host_gib),
        one.date,
    ]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def write_report(path: Path, results: Iterable[Result]) -> None:
    """Put the table between the markers of a document."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path} has no place for the table.", fix=f"Write {BEGIN} and {END} into it.")
    write_text(path, f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")


def write_measurement(path: Path, result: Result) -> None:
    """Write a result into a profile as its measurement; everything above it stays, comments included.

    Raises:
        UserError: the profile's settings are not those that were measured, the run failed or left too little, or a
            phase was not measured (its cache was warm).
    """
    text = path.read_text(encoding="utf-8")
    data = tomllib.loads(text)
    if settings_digest(data) != result.digest:
        raise UserError(
            f"{path.name} has other settings than the candidate {result.name}.",
            fix="Write the candidate's settings into it first, each with its reason.",
        )
    if not result.has_room:
        left = "It needs a run that ends in order with 5 % of the cap left."
        raise UserError(f"The candidate {result.name} does not prove a profile.", fix=left)
    missing = [phase for phase in PHASES if phase not in result.allocated_gib]
    if missing or not {512, 1024} <= set(result.seconds_per_step):
        raise UserError(
            f"Not everything was measured: {', '.join(missing) or 'both resolutions'}.",
            fix="Run it with --cold, so that its caches are made anew, and with more --steps.",
        )
    document = tomlkit.parse(text.partition("[measured]")[0].rstrip() + "\n")
    document["measured"] = _measured_table(result)
    write_text(path, tomlkit.dumps(document))
    read_profile(path)


def _measured_table(result: Result) -> dict[str, Any]:
    phases = [name for name in result.allocated_gib if name.startswith(PHASES)]
    plain = {
        "settings": result.digest,
        "date": tomlkit.date(result.date),
        "gpu": result.gpu,
        "simpletuner": result.simpletuner,
        "cap_gib": result.cap_gib,
        "batch_size": result.batch_size,
        "host_gib": result.host_gib,
        "card_gib": result.card_gib,
        "peak_allocated_gib": max(result.allocated_gib[name] for name in phases),
        "peak_reserved_gib": result.reserved,
        "seconds_per_step": {str(edge): seconds for edge, seconds in sorted(result.seconds_per_step.items())},
        "allocated_gib": {name: result.allocated_gib[name] for name in phases},
        "reserved_gib": {name: result.reserved_gib[name] for name in phases if name in result.reserved_gib},
    }
    return {key: value for key, value in plain.items() if value is not None}


def _settings_dict(settings: ProfileSettings) -> dict[str, Any]:
    return {key: getattr(settings, key) for key in (*_TABLES, "shims")}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
