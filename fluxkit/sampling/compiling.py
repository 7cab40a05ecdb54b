"""Whether compiling pays: from what this machine's own runs took, kept in the user's cache folder.

The fused kernels need no compiler. `torch.compile`, block by block, costs 15 s the first time and 3 s later (measured
on an H100, where what it made was slower than today's kernels); elsewhere it may be faster, for many pictures.
`FLUXKIT_COMPILE` is `auto` (compile once the measurements of both ways say that it pays), `on` or `off`.
"""

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError
from fluxkit.files import cache_dir, read_json, write_json

VARIABLE = "FLUXKIT_COMPILE"


@dataclass(frozen=True)
class Timing:
    """What one way of running took on this machine.

    Args:
        picture_s: seconds of denoising a picture, once warm.
        first_s: what the first batch took longer: compiling, or Triton's kernels.
    """

    picture_s: float
    first_s: float


def wanted() -> str:
    """`auto`, `on` or `off`.

    Raises:
        UserError: the setting is something else.
    """
    text = os.environ.get(VARIABLE, "auto")
    if text not in ("auto", "on", "off"):
        raise UserError(f"{VARIABLE}={text} is none of auto, on and off.", fix=f"For example: {VARIABLE}=off")
    return text


def break_even(eager: Timing, compiled: Timing) -> float:
    """Pictures from which on compiling pays; infinite where it is no faster."""
    gain = eager.picture_s - compiled.picture_s
    cost = max(compiled.first_s - eager.first_s, 0.0)
    return cost / gain if gain > 0 else math.inf


class Timings:
    """What is known, by what decides the speed.

    Args:
        facts: GPU, library versions, precision, size, steps and batch.
    """

    def __init__(self, **facts: Any) -> None:
        self._path: Path = cache_dir() / "sampling" / "timings.json"
        self._key = ", ".join(f"{name} {value}" for name, value in facts.items())

    def get(self, way: str) -> Timing | None:
        """What `eager` or `compiled` took here; None where it was never run."""
        try:
            return Timing(**self._read()[self._key][way])
        except (KeyError, TypeError):
            return None

    def put(self, way: str, timing: Timing) -> None:
        """Remember; a file that can't be written is no error."""
        known = self._read()
        known.setdefault(self._key, {})[way] = asdict(timing)
        try:
            write_json(self._path, known)
        except UserError:
            return

    def decide(self, pictures: int) -> tuple[bool, str]:
        """Whether to compile for so many pictures, and why, for people."""
        choice = wanted()
        if choice != "auto":
            return choice == "on", f"{VARIABLE}={choice}"
        eager, compiled = self.get("eager"), self.get("compiled")
        if eager is None or compiled is None:
            return False, f"not measured on this machine yet ({VARIABLE}=on tries it)"
        least = break_even(eager, compiled)
        if math.isinf(least):
            return False, "it is no faster on this machine"
        return pictures >= least, f"it pays from {math.ceil(least)} pictures on, and there are {pictures}"

    def _read(self) -> dict[str, Any]:
        try:
            known = read_json(self._path) if self._path.is_file() else {}
        except UserError:
            return {}
        return known if isinstance(known, dict) else {}


def keep_inductor_cache() -> None:
    """Let compiled code be kept between runs, in fluxkit's cache folder; before anything is compiled."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "sampling" / "inductor"))


def compile_blocks(model: Any) -> None:
    """Compile each block: blocks of one kind share their code."""
    from fluxkit.sampling.ops import PlainOps

    keep_inductor_cache()
    model.ops = PlainOps(model.ops.kind)  # what fuses best is what torch can look into
    for block in model.blocks:
        block.compile(fullgraph=True, dynamic=False)
