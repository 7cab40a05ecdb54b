"""A project as `fluxkit init` makes it from flags, for the tests that start from one."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fluxkit.commands.init import init
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.trainer.runs import ADAPTER_FILE


def start_project(root: Path, *, simpletuner: str | None = None, profile: str = "24gb") -> None:
    """Make the project of behitek, a man, with its photos in `dataset/`."""
    init(
        root,
        trigger="behitek",
        subject="man",
        dataset=Path("dataset"),
        profile=profile,
        simpletuner=simpletuner,
        yes=True,
        out=Output(verbosity=-1),
    )


def small_project(folder: Path) -> tuple[Path, Path]:
    """One to be trained ten steps by a stand-in; the weights that this is to end with.

    The base model is a folder of one double and one single block, so that 15 modules are expected.
    """
    root, base, weights = folder / "project", folder / "base", folder / ADAPTER_FILE
    make_demo_dataset(root / "dataset", "behitek", "man")
    start_project(root)
    (base / "transformer").mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    (base / "transformer" / "config.json").write_text('{"num_layers": 1, "num_single_layers": 1}')
    toml = root / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("black-forest-labs/FLUX.1-dev", str(base)).replace("= 10000", "= 10"))
    save_file({f"lycoris_m{i}.lokr_w1": np.ones((1, 1), np.float32) for i in range(15)}, weights)
    return root, weights
