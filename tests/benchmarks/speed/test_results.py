"""What a process before this one has measured."""

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.speed.results import measured


def test_what_was_measured_before_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    lines: list[dict[str, Any]] = [
        {"variant": "rate-fp8", "tflops": 1400.0, "by_shape": {}},
        {"variant": "rate-attention", "tflops": {"chosen": 600}},
        {"variant": "check", "failed": "x"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    guide, rates = measured(file)
    assert math.isnan(guide)
    assert rates == {"fp8": 1.4e15}
    with file.open("a") as handle:
        handle.write(json.dumps({"variant": "guide", "s_image": 5.3}) + "\n")
    assert measured(file)[0] == 5.3
