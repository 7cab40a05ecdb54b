"""Which repairs a launch of the trainer needs, and the folder on its PYTHONPATH that brings them.

Which releases need which is in `releases.toml`, as defects. The shims lie in `_shims`, one file each, with the reason
and the measurement; they are copied out, so that nothing else of fluxkit is on the trainer's path.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fluxkit.files import write_text
from fluxkit.trainer.releases import Defect, defects_of

_SOURCES = Path(__file__).resolve().parent / "_shims"


def shims_for(
    release_version: str, *, rehearsal_without_cuda: bool, options: Mapping[str, object], processes: int = 1
) -> tuple[str, ...]:
    """Names of the shims for one launch.

    Args:
        release_version: the SimpleTuner release.
        rehearsal_without_cuda: whether this is a rehearsal on a machine without a GPU.
        options: the rendered options, without dashes.
        processes: how many train together.
    """
    now = {"": True, "rehearsal-without-cuda": rehearsal_without_cuda, "several-processes": processes > 1}
    return tuple(
        str(defect.replacement)
        for defect in defects_of(release_version)
        if defect.action == "shim"
        and now[defect.when]
        and (not defect.option or options.get(defect.option) in _values(defect))
    )


def _values(defect: Defect) -> tuple[object, ...]:
    return tuple(defect.value) if isinstance(defect.value, list) else (defect.value,)


def write_shims(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Write the shims into `folder` and return the variables that load them.

    Args:
        folder: a folder of their own.
        names: from `shims_for`; with none, nothing is written and no variable is needed.

    Returns:
        `PYTHONPATH` and `FLUXKIT_SHIMS`, or nothing.
    """
    if not names:
        return {}
    # A prefix: on a path, a module called "linear4bit" could hide another.
    for name, target in [("sitecustomize", "sitecustomize"), *((name, f"fluxkit_shim_{name}") for name in names)]:
        write_text(folder / f"{target}.py", (_SOURCES / f"{name}.py").read_text(encoding="utf-8"))
    return {"PYTHONPATH": os.fspath(folder.absolute()), "FLUXKIT_SHIMS": ",".join(names)}
