"""Lines of results.jsonl."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Results:
    """Where results go.

    Args:
        folder: of results.jsonl.
        label: in every line, to tell runs apart.
    """

    folder: Path
    label: str

    @property
    def file(self) -> Path:
        """One line for each `record`, of this process and those before it."""
        return self.folder / "results.jsonl"

    def record(self, name: str, **facts: Any) -> None:
        """One line of results, on the screen and in the file."""
        line = {"variant": name, "label": self.label, **facts}
        print(json.dumps(line), flush=True)
        with self.file.open("a") as handle:
            handle.write(json.dumps(line) + "\n")


def measured(results: Path) -> tuple[float, dict[str, float]]:
    """What a process before this one found: the guide's seconds a picture (NaN if it was not run), rates by kind."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    guides = [line["s_image"] for line in lines if line["variant"] == "guide" and "s_image" in line]
    rates = [line for line in lines if line["variant"].startswith("rate-") and "by_shape" in line]
    return (guides or [math.nan])[-1], {line["variant"].removeprefix("rate-"): line["tflops"] * 1e12 for line in rates}
