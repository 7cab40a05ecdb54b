"""Which releases go on from which release's checkpoints: tried with the real trainers, written to resumes.toml.

python scripts/resume_across.py FROM:TO [FROM:TO]...     rows of other pairs stay as they are

Each pair: two steps with FROM on a tiny random FLUX on the CPU, a checkpoint, then the same run with TO to step four,
as `fluxkit upgrade` and `fluxkit train` would have it. It goes on where step three is the first that TO trains and the
result is proven. Everything runs in a folder of its own; the environments lie in the user's cache and stay.
"""

import argparse
import shutil
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import tomlkit
from packaging.version import Version

from fluxkit.commands import launching
from fluxkit.commands.init import init
from fluxkit.commands.install import install
from fluxkit.commands.train import train
from fluxkit.console import Mute
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import FluxkitError
from fluxkit.files import write_text
from fluxkit.project.edit import edited
from fluxkit.sampling.tiny_flux import make_tiny_flux
from fluxkit.trainer.metrics import read_metrics
from fluxkit.trainer.runs import Run

TABLE = Path(__file__).resolve().parent.parent / "third_party" / "simpletuner" / "resumes.toml"
HEAD = """\
# Whether SimpleTuner `to` goes on from a checkpoint of `from`: made by scripts/resume_across.py, which ran each pair
# with the tiny FLUX on a CPU (LyCORIS LoKr, int8-quanto, adamw_bf16). `reason`: why not, the trainer's own last words.
"""
OPTIONS = {"report_to": "none", "validation_resolution": "64x64", "validation_num_inference_steps": 1}


def main() -> None:
    """Try the pairs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", nargs="+")
    pairs = [tuple(pair.split(":")) for pair in parser.parse_args().pair]
    # Without a GPU the trainer needs the repairs that a rehearsal brings.
    shims = launching.shims_for
    launching.shims_for = lambda release, **words: shims(release, **{**words, "rehearsal_without_cuda": True})
    for old, group in groupby(sorted(pairs, key=lambda pair: Version(pair[0])), key=lambda pair: pair[0]):
        with tempfile.TemporaryDirectory(prefix="fluxkit-across-") as folder:
            begun = begin(Path(folder), old)
            for _, new in group:
                row = {"from": old, "to": new, **go_on(begun, Path(folder), new)}
                row["seen"] = datetime.now(UTC).date().isoformat()
                keep(row)
                print(row, flush=True)


def begin(folder: Path, release: str) -> Path:
    """Two steps with a release; the project, kept aside as the run left it."""
    root = folder / "project"
    make_demo_dataset(root / "dataset", "fxkdemo", "person")
    words = {"trigger": "fxkdemo", "subject": "person", "dataset": Path("dataset"), "profile": "24gb"}
    init(root, **words, simpletuner=None, yes=True, out=Mute(verbosity=-1))
    run = launch(root, folder, release, steps=2)
    run.update(status="interrupted")
    shutil.copytree(root, folder / "begun", symlinks=True)
    return folder / "begun"


def go_on(begun: Path, folder: Path, release: str) -> dict[str, Any]:
    """The begun run with another release: whether it goes on, and why not."""
    root = folder / "project"
    shutil.rmtree(root)
    shutil.copytree(begun, root, symlinks=True)
    try:
        run = launch(root, folder, release, steps=4)
    except FluxkitError as error:
        return {"goes_on": False, "reason": error.message}
    steps = [event["step"] for event in read_metrics(run) if event["event"] == "step"]
    begins = steps[-1] if steps.count(3) == 0 else 3
    if sorted(set(steps)) != [1, 2, 3, 4] or len(steps) != 4:
        return {"goes_on": False, "reason": f"it trained the steps {steps}: not from the checkpoint ({begins})"}
    return {"goes_on": True}


def launch(root: Path, folder: Path, release: str, *, steps: int) -> Run:
    """Install a release and train with it to a step."""
    toml = root / "fluxkit.toml"
    settings = {
        ("dataset", "resolutions"): [512],
        ("model", "base"): str(make_tiny_flux(folder / "tiny-flux")),
        ("train", "steps"): steps,
        ("train", "checkpoint_every"): 2,
        ("train", "validate_every"): 100,
        **{("train", "options", name): value for name, value in OPTIONS.items()},
        ("simpletuner", "version"): release,
        ("simpletuner", "platform"): "cpu",
    }
    toml.write_text(edited(toml.read_text(), settings))
    install(root, python=None, out=Mute(verbosity=-1))
    run = train(root, rehearse=False, dry_run=False, fresh=False, option=(), no_fit_check=True, out=Mute(verbosity=-1))
    if run is None:
        sys.exit("train made no run")
    return run


def keep(row: dict[str, Any]) -> None:
    """Write a row in the place of what was known of the pair."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["resume"] if TABLE.is_file() else []
    rows = [each for each in rows if (each["from"], each["to"]) != (row["from"], row["to"])] + [row]
    rows.sort(key=lambda each: (Version(each["from"]), Version(each["to"])))
    write_text(TABLE, HEAD + "\n" + tomlkit.dumps({"resume": rows}))


if __name__ == "__main__":
    main()
