"""The record of each training run: `runs/<id>/run.json`, and which run comes next.

A run's folder holds everything that it used and made: `config/` (rendered), `output/` (checkpoints, final weights,
validation images), `logs/` and the record.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fluxkit.errors import UserError
from fluxkit.files import read_json, write_json

Status = Literal["prepared", "running", "finished", "failed", "interrupted"]
_ID = re.compile(r"\d{8}-\d{3,}")
ADAPTER_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class RunRecord:
    """What a run is and what became of it.

    Args:
        id: `YYYYMMDD-NNN`.
        status: how far it came.
        rehearsal: whether it trained the tiny random FLUX instead of the real base.
        base: Hub id or folder of the base model that it trains on.
        revision: the Hub revision of `base`, if one is pinned.
        release: the SimpleTuner release.
        steps: optimizer steps asked for.
        created: ISO 8601, UTC.
        adapter: `lycoris` or `standard`.
        modules: adapted modules in the final weights; None before they were checked.
        message: why it failed.
        profile: the VRAM class.
        resolutions: edges of the square crops.
        batch_size: images an optimizer step, accumulation and all GPUs included; 0 in records from before it was kept.
        seconds_per_step: the median of its optimizer steps, without validation images and checkpoints; None before it
            was measured.
        gpus: training processes on each machine, one a GPU.
        machines: how many machines trained together.
        env: the profile's and `[env]`'s variables of the trainer's process, secrets masked; None in records from before
            they were kept.
    """

    id: str
    status: Status
    rehearsal: bool
    base: str
    revision: str | None
    release: str
    steps: int
    created: str
    adapter: str
    modules: int | None = None
    message: str = ""
    profile: str = ""
    resolutions: tuple[int, ...] = ()
    batch_size: int = 0
    seconds_per_step: float | None = None
    gpus: int = 1
    machines: int = 1
    env: Mapping[str, str] | None = None

    @property
    def processes(self) -> int:
        """How many trained together, on all machines."""
        return self.gpus * self.machines


@dataclass(frozen=True)
class Run:
    """A run's folder with its record."""

    folder: Path
    record: RunRecord

    @property
    def config_dir(self) -> Path:
        """The rendered config: the trainer, started in `folder`, reads `config/config.json`."""
        return self.folder / "config"

    @property
    def output_dir(self) -> Path:
        """Where the trainer writes checkpoints and the final weights."""
        return self.folder / "output"

    @property
    def log_file(self) -> Path:
        """The trainer's full output."""
        return self.folder / "logs" / "trainer.log"

    @property
    def final_weights(self) -> Path:
        """The adapter after the last step; absent until the run finished."""
        return self.output_dir / ADAPTER_FILE

    def checkpoints(self) -> dict[int, Path]:
        """The adapter of each checkpoint by its step, ascending."""
        found = {}
        for weights in self.output_dir.glob(f"checkpoint-*/{ADAPTER_FILE}"):
            step = weights.parent.name.removeprefix("checkpoint-")
            if step.isdigit():
                found[int(step)] = weights
        return dict(sorted(found.items()))

    def update(self, **changes: Any) -> "Run":
        """The run with a changed record, written to disk first."""
        record = replace(self.record, **changes)
        write_json(self.folder / "run.json", asdict(record))
        return Run(self.folder, record)


def list_runs(runs_dir: Path) -> list[Run]:
    """All runs with a readable record, oldest first.

    Raises:
        UserError: a record can't be read.
    """
    if not runs_dir.is_dir():
        return []
    folders = sorted(
        (p for p in runs_dir.iterdir() if _ID.fullmatch(p.name) and (p / "run.json").is_file()),
        key=lambda p: (p.name[:8], int(p.name[9:])),
    )
    return [Run(folder, _parse(read_json(folder / "run.json"), folder)) for folder in folders]


def find_run(runs_dir: Path, run_id: str) -> Run:
    """The run of that id.

    Raises:
        UserError: there is none.
    """
    runs = list_runs(runs_dir)
    for run in runs:
        if run.record.id == run_id:
            return run
    known = ", ".join(run.record.id for run in runs) or "none yet"
    raise UserError(f"There is no run {run_id} in {runs_dir}.", fix=f"Known runs: {known}.")


def unfinished(runs_dir: Path) -> Run | None:
    """The newest run, if it is unfinished: what `train` continues. Rehearsals are left out."""
    real = [run for run in list_runs(runs_dir) if not run.record.rehearsal]
    return real[-1] if real and real[-1].record.status != "finished" else None


def new_run(runs_dir: Path, record: Mapping[str, Any], *, today: dt.date | None = None) -> Run:
    """Make the next run's folder and its first record.

    Args:
        runs_dir: the project's `runs/`.
        record: the fields of `RunRecord` but for id, status and created.
        today: the date in the id.
    """
    runs_dir.mkdir(parents=True, exist_ok=True)
    while True:
        folder = next_folder(runs_dir, today=today)
        try:
            folder.mkdir()  # fails when another process took the number: nobody shares a folder
            break
        except FileExistsError:
            continue
    created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return Run(folder, RunRecord(id=folder.name, status="prepared", created=created, **record)).update()


def next_folder(runs_dir: Path, *, today: dt.date | None = None) -> Path:
    """Where the next run would go; not made."""
    day = (today or dt.datetime.now(dt.UTC).date()).strftime("%Y%m%d")
    number = 1
    while (folder := runs_dir / f"{day}-{number:03d}").exists():
        number += 1
    return folder


def _parse(data: Any, folder: Path) -> RunRecord:
    try:
        return RunRecord(**{**data, "resolutions": tuple(data.get("resolutions", ()))})
    except TypeError as error:
        raise UserError(
            f"{folder / 'run.json'} is not a record that this fluxkit knows: {error}.",
            fix="It was probably written by a newer fluxkit: update fluxkit, or move the run's folder away.",
        ) from error
