"""Which checkpoint a run can go on from: each is looked at, newest first, before the trainer is started.

Every release takes `latest` to mean the folder `checkpoint*` with the highest number and loads it as it is; one that a
full disk or a power cut left incomplete ends the run (SimpleTuner #2613), a folder of another name ends it too (1.2) or
makes it start from nothing (3.0 and later). Such folders are moved to `output/set-aside/`, where no release looks.

What a complete one holds was read from SimpleTuner 1.2.5 to 4.10.1 and accelerate, in the order of writing: the adapter
and `training_state.json`, then `optimizer.bin`, `scheduler.bin` and `random_states_0.pkl`, then for each dataset a
`training_state-<backend>.json`, by 4.1.0 `checkpoint_manifest.json`, by 4.3.5 `.guard`.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxkit.errors import TrainerError
from fluxkit.trainer.outputs import read_adapter
from fluxkit.trainer.runs import ADAPTER_FILE, Run

SET_ASIDE = "set-aside"
STATE_FILE = "training_state.json"
MANIFEST_FILE = "checkpoint_manifest.json"
GUARD_FILE = ".guard"
_NUMBERED = re.compile(r"checkpoint-(\d+)(-.*)?")
_TORCH_FILES = (".bin", ".pt", ".pkl")
# accelerate keeps these where DeepSpeed or FSDP split the optimizer's state.
_SHARDED = ("pytorch_model", "optimizer_0", "pytorch_model_fsdp_0")


@dataclass(frozen=True)
class SetAside:
    """What can't be resumed from.

    Args:
        folder: the folder or file, where it is or was.
        reason: what is wrong with it.
    """

    folder: Path
    reason: str


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Args:
        step: the optimizer step of `folder`; 0 where the run starts anew.
        folder: the newest checkpoint that is whole; None where there is none.
        damaged: newer ones that are not, newest first.
    """

    step: int
    folder: Path | None
    damaged: tuple[SetAside, ...]


def find_resume_point(run: Run) -> ResumePoint:
    """The newest checkpoint of a run that is whole, and those above it that are not. Nothing is changed."""
    damaged: list[SetAside] = []
    folders = list(_candidates(run.output_dir))
    guarded = [folder for folder in folders if (folder / GUARD_FILE).is_file()]
    numbered = sorted(((step, folder) for folder in folders if (step := _step(folder)) is not None), reverse=True)
    damaged += [
        SetAside(folder, "its name has no step, which keeps the trainer from finding the others")
        for folder in folders
        if _step(folder) is None
    ]
    for step, folder in numbered:
        reason = next(_problems(folder), None)
        if reason is None and guarded and folder not in guarded:
            reason = "it was not finished: the mark is missing that the trainer writes last"
        if reason is None:
            return ResumePoint(step, folder, tuple(damaged))
        damaged.append(SetAside(folder, reason))
    return ResumePoint(0, None, tuple(damaged))


def set_aside(run: Run, damaged: tuple[SetAside, ...]) -> list[Path]:
    """Move what is damaged to `output/set-aside/`, so that `latest` means the newest that is whole.

    Returns:
        Where they are now, in the same order.
    """
    moved = []
    for each in damaged:
        target = run.output_dir / SET_ASIDE / each.folder.name
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f"{each.folder.name}.{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        each.folder.rename(target)
        moved.append(target)
    return moved


def state_step(folder: Path) -> int | None:
    """The optimizer step that a checkpoint's own state names; None where it has none."""
    try:
        return int(json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _candidates(output: Path) -> Iterator[Path]:
    """What upstream's `latest` chooses from; a folder ending in `tmp` is none from 2.1.3 on, when they came up."""
    if not output.is_dir():
        return
    for folder in sorted(output.iterdir()):
        if folder.name.startswith("checkpoint") and not folder.name.endswith("tmp"):
            yield folder


def _step(folder: Path) -> int | None:
    match = _NUMBERED.fullmatch(folder.name)
    return int(match[1]) if match and folder.is_dir() else None


def _problems(folder: Path) -> Iterator[str]:
    """What is wrong with a checkpoint, cheapest first."""
    yield from _missing(folder)
    for path in sorted(folder.glob("*.json")):
        if not _is_json(path):
            yield f"{path.name} is damaged"
    if state_step(folder) is None:
        yield f"{STATE_FILE} names no step"
    try:
        facts = read_adapter(folder / ADAPTER_FILE)
    except TrainerError as error:
        yield f"its adapter is damaged ({error.message})"
        return
    if not facts.finite:
        yield "its weights are not numbers any more (NaN)"
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _TORCH_FILES and p.is_file()):
        yield from _torch_problems(path, path.relative_to(folder).as_posix())


def _missing(folder: Path) -> Iterator[str]:
    needed = [ADAPTER_FILE, STATE_FILE, "random_states_0.pkl"]
    if not any((folder / name).exists() for name in _SHARDED):
        needed.append("optimizer.bin")
    # A dataset's own state is left out: fluxkit takes it away when the photos changed (caches.py).
    listed = [name for name in _manifest_files(folder) if not name.startswith("training_state-")]
    for name in dict.fromkeys((*needed, *listed)):
        if not (folder / name).is_file():
            yield f"{name} is missing"


def _manifest_files(folder: Path) -> list[str]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return []
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # reported as damaged
    files = data.get("files", []) if isinstance(data, dict) else []
    return [name for name in files if isinstance(name, str)]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _torch_problems(path: Path, name: str) -> Iterator[str]:
    """A torch file is a ZIP archive with the checksum of each of its parts; the directory at its end goes first."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        yield f"{name} is cut off or damaged"
        return
    if part is not None:
        yield f"{name} is damaged (in {part})"
