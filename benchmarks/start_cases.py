"""The starts of `fluxkit sample` that `benchmarks/start.py` measures, in the order of their worth."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One start of the command.

    Args:
        name: of the line in the results.
        limit_s: after so long it is ended.
        expected_s: what it takes on an H100 or H200, measured or worked out from what was.
        cold: whether the file cache is emptied before.
        args: of `fluxkit sample`, beside the common ones.
        env: variables.
    """

    name: str
    limit_s: int
    expected_s: int
    cold: bool = False
    args: tuple[str, ...] = ("--quantize", "auto", "--seeds", "1")
    env: dict[str, str] = field(default_factory=dict)


FP8 = ("--quantize", "auto", "--seeds")
CAP, FREE, OOM = "FLUXKIT_START_CAP_GIB", "FLUXKIT_START_FREE_GIB", "FLUXKIT_START_OOM"
COMPILE = {"FLUXKIT_COMPILE": "on"}
# In the order of their worth. Without `first`, `first-warm` or `nf4-7.5` before them, the others find nothing kept.
CASES = (
    Case("first", 120, 57, cold=True),
    Case("first-warm", 120, 56),
    Case("second-cold", 60, 14, cold=True),
    Case("second-warm", 45, 7),
    Case("compiled-cold", 100, 23, args=(*FP8, "3", "--batch-size", "1"), env=COMPILE),
    Case("compiled-warm", 60, 13, args=(*FP8, "2", "--batch-size", "1"), env=COMPILE),
    # As many pictures as the ladder takes at once there: what it predicts must hold.
    Case("cap-11", 45, 18, args=(*FP8, "4"), env={CAP: "11.0"}),
    Case("streamed-8", 60, 15, args=(*FP8, "3"), env={CAP: "8.0"}),
    # The GPU has less than it says: memory runs out for real, while the first picture is decoded at the latest.
    Case("too-little", 60, 15, args=(*FP8, "2", "--batch-size", "2"), env={CAP: "9.3", FREE: "12"}),
    Case("cap-22.5", 45, 12, env={CAP: "22.5"}),
    Case("out-of-memory", 45, 10, args=(*FP8, "2", "--batch-size", "2"), env={OOM: "1"}),
    Case("nf4-7.5", 100, 43, args=("--quantize", "nf4", "--seeds", "4"), env={CAP: "7.5"}),
    Case("first-block", 45, 14, args=(*FP8, "2", "--batch-size", "2", "--first-block-cache", "0.9")),
    Case("quanto-22.5", 90, 60, args=("--quantize", "int8", "--seeds", "1"), env={CAP: "22.5"}),
    Case("new-prompt", 60, 45, args=(*FP8, "1", "--prompt", "a portrait of a man in the snow")),
)
