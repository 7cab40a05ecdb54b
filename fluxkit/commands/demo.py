"""`fluxkit demo`: every verb in turn, on made-up pictures and a tiny random FLUX, with the real trainer."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fluxkit.commands.init import init
from fluxkit.commands.install import install
from fluxkit.commands.render import render
from fluxkit.commands.sample import sample
from fluxkit.commands.train import train
from fluxkit.commands.validate import validate
from fluxkit.console import Mute, Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import TrainerError
from fluxkit.files import cache_dir

TRIGGER = "fxkdemo"
_Result = TypeVar("_Result")


def demo(folder: Path | None, *, out: Output) -> Path:
    """Run the whole chain and return the gallery.

    Args:
        folder: where the demo's project lies; a cache folder by default. A project that is there is used again.
        out: where to say things; the stages' own lines are shown with `-v`.
    """
    root = (folder or cache_dir() / "demo").resolve()
    quiet = out if out.verbosity > 0 else Output(verbosity=-1)
    stages = _Stages(out)
    photos = root / "dataset"
    if not photos.is_dir():
        stages.run("Drawing six pictures with captions", lambda: make_demo_dataset(photos, TRIGGER, "person"))
    stages.run("Scaffolding a project", lambda: _init(root, quiet))
    stages.run("Validating the pictures", lambda: validate(root, out=_silent(quiet)))
    stages.run(
        "Rendering SimpleTuner's config",
        lambda: render(root, folder=None, diff=False, option=(), out=_silent(quiet)),
    )
    stages.run("Installing SimpleTuner from its lock", lambda: install(root, python=None, out=_silent(quiet)))
    run = stages.run(
        "Training 4 steps on a tiny FLUX",
        lambda: train(root, rehearse=True, dry_run=False, fresh=True, option=(), out=_silent(quiet)),
    )
    if run is None:
        raise TrainerError("The rehearsal returned no run.")
    galleries = stages.run("Making 2 × 2 images", lambda: _sample(root, run.record.id, _silent(quiet)))
    out.result(str(galleries[-1]))
    return galleries[-1]


class _Stages:
    """One line a stage, with the seconds that it took."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._number = 0

    def run(self, name: str, stage: Callable[[], _Result]) -> _Result:
        self._number += 1
        started = time.monotonic()
        result = stage()
        self._out.say(f"{self._number}. {name}: {time.monotonic() - started:.1f} s")
        return result


def _silent(out: Output) -> Output:
    """Results of the inner verbs are not the demo's result."""
    return out if out.verbosity > 0 else Mute(verbosity=-1)


def _init(root: Path, out: Output) -> None:
    init(
        root,
        trigger=TRIGGER,
        subject="person",
        dataset=Path("dataset"),
        profile="24gb",
        simpletuner=None,
        yes=True,
        out=_silent(out),
    )


def _sample(root: Path, run_id: str, out: Output) -> list[Path]:
    return sample(
        root,
        run_id=run_id,
        checkpoint="latest",
        prompt=(
            f"{TRIGGER} a portrait of a person in a red coat, city street at dusk",
            f"{TRIGGER} a portrait of a person reading by a window, soft morning light",
        ),
        seeds="2",
        size="64x64",
        num_inference_steps="4",
        quantize="int8",
        batch_size="2",
        out=out,
    )
