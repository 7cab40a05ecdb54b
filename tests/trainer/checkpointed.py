"""A checkpoint as SimpleTuner leaves it: what a 4.8.0 rehearsal wrote, name by name, with small contents."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fluxkit.trainer.runs import ADAPTER_FILE

BACKEND = "behitek-1024-0123abcd"


def torch_file(path: Path) -> None:
    """A file with torch's layout: a ZIP archive, stored, not packed."""
    contents = io.BytesIO()
    with zipfile.ZipFile(contents, "w") as archive:
        archive.writestr(f"{path.stem}/data.pkl", bytes(range(256)) * 8)
        archive.writestr(f"{path.stem}/data/0", b"\x01" * 4096)
    path.write_bytes(contents.getvalue())


def write_checkpoint(output: Path, step: int, *, manifest: bool = True, guard: bool = True) -> Path:
    """Make `checkpoint-<step>` in a run's output folder."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    weights = {f"lycoris_m{i}.lokr_{part}": np.ones((2, 2), np.float32) for i in range(3) for part in ("w1", "w2")}
    save_file(weights, folder / ADAPTER_FILE, metadata={"global_step": str(step)})
    (folder / "lycoris_config.json").write_text("{}")
    (folder / "training_state.json").write_text(json.dumps({"global_step": step, "epoch": 1}))
    (folder / f"training_state-{BACKEND}.json").write_text(json.dumps({"batch_size": 1, "seen_images": {}}))
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        torch_file(folder / name)
    if manifest:
        files = sorted(path.name for path in folder.iterdir())
        (folder / "checkpoint_manifest.json").write_text(json.dumps({"version": 1, "files": files}))
    if guard:
        (folder / ".guard").write_text("complete\n")
    return folder
