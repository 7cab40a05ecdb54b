"""Proof that a run succeeded: its adapter loads, holds the expected modules, is of the last step, and has learned.

The trainer's exit code proves nothing: `train.sh` ends in `exit 0` in every release, and releases up to 3.3.4 print
a traceback and exit 0 ("Training complete" after a failure: fluxgym #247, #442, #465). An adapter that loads proves
little, too: a run whose loss became NaN writes one of NaNs, and one whose gradients never arrived writes the one that
it began with.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import TrainerError
from fluxkit.trainer.runs import Run
from fluxkit.trainer.tensors import TensorFacts, scan_tensors

# An adapter begins as nothing: one factor of its product is all zeros (LyCORIS 3.4 sets lokr_w2 or lokr_w2_b, lora_up,
# hada_w2_a so, PEFT lora_B; LyCORIS's `use_scalar` is a zero that is multiplied into another factor when it is saved).
_FACTOR = re.compile(r"(lokr_w|lokr_t|hada_w|hada_t|lora_(up|down|mid|A|B)\b)")
# The algorithms that are no product begin with zeros in these.
_WHOLE = ("diff", "oft_blocks", "weight", "a2.weight", "b2.weight")


class StoppedShort(TrainerError):
    """The trainer did not get to its end; its log may say why."""


@dataclass(frozen=True)
class AdapterFacts:
    """What is in an adapter's file.

    Args:
        modules: adapted modules.
        kind: `lycoris` or `standard` (PEFT's `lora_A`/`lora_B`).
        step: the optimizer step written in its metadata; None where the release writes none.
        finite: whether every weight is a number.
        unchanged: modules that add nothing to the base model, as before the first step.
    """

    modules: int
    kind: str
    step: int | None
    finite: bool = True
    unchanged: int = 0


def read_adapter(path: Path) -> AdapterFacts:
    """Read an adapter, a tensor at a time; safetensors checks the header against the file's length first.

    Raises:
        TrainerError: the file is missing, damaged, or no adapter.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            keys = list(handle.keys())
            metadata = handle.metadata() or {}
        tensors = list(scan_tensors(path))
    except (OSError, SafetensorError) as error:
        raise TrainerError(f"The adapter {path} can't be read: {error}", fix="Look at the run's log.") from error
    lycoris = {_module(key) for key in keys if key.startswith("lycoris_")}
    peft = {key.split(".lora_")[0] for key in keys if ".lora_A." in key or ".lora_B." in key}
    modules = lycoris or peft
    if not modules:
        raise TrainerError(f"{path} holds no adapter weights ({len(keys)} tensors).", fix="Look at the run's log.")
    step = metadata.get("global_step", "")
    return AdapterFacts(
        modules=len(modules),
        kind="lycoris" if lycoris else "standard",
        step=int(step) if step.isdigit() else None,
        finite=all(tensor.finite for tensor in tensors),
        unchanged=_unchanged(tensors),
    )


def _module(key: str) -> str:
    """The module that a tensor belongs to: LyCORIS's names have no dots in a module's, PEFT's have."""
    return key.split(".", 1)[0] if key.startswith("lycoris_") else key.split(".lora_")[0]


def _unchanged(tensors: list[TensorFacts]) -> int:
    """Modules that add nothing to the base model: a factor of their product, or all there is, is zero."""
    adds: dict[str, bool] = {}
    nothing = set()
    for tensor in tensors:
        module = _module(tensor.name)
        part = tensor.name.removeprefix(f"{module}.")
        if _FACTOR.match(part):
            adds[module] = True
            nothing |= {module} if tensor.zero else set()
        elif part in _WHOLE:
            adds[module] = adds.get(module, False) or not tensor.zero
    return len(nothing) + sum(not added for module, added in adds.items() if module not in nothing)


def last_saved_step(run: Run) -> int | None:
    """The newest step that the run's files prove, by checkpoints' `training_state.json` or folder names."""
    steps = list(run.checkpoints())
    for state in run.output_dir.glob("checkpoint-*/training_state*.json"):
        try:
            steps.append(int(json.loads(state.read_text(encoding="utf-8"))["global_step"]))
        except (OSError, ValueError, KeyError, TypeError):  # a damaged state file proves nothing
            continue
    return max(steps, default=None)


def check_result(run: Run, *, returncode: int, expected_modules: int | None, seen_step: int | None) -> AdapterFacts:
    """Decide whether a run that ended is a success.

    Args:
        run: the run.
        returncode: the trainer's exit code.
        expected_modules: modules that the adapter must have; None where it can't be predicted (then more than 0).
        seen_step: the last step in the trainer's output.

    Raises:
        TrainerError: it is not, and why.
    """
    log = f"The full log is {run.log_file}."
    if returncode != 0:
        raise StoppedShort(f"SimpleTuner failed with exit code {returncode}. {log}")
    if not run.final_weights.is_file():
        raise StoppedShort(f"SimpleTuner ended without an error, but wrote no final weights. {log}")
    facts = read_adapter(run.final_weights)
    if expected_modules is not None and facts.modules != expected_modules:
        raise TrainerError(
            f"The adapter has {facts.modules} modules where {expected_modules} were expected. {log}",
            fix="Check [lycoris] in fluxkit.toml; without it, this is a change in SimpleTuner: please report it.",
        )
    _check_weights(facts, log)
    candidates = [s for s in (facts.step, last_saved_step(run), seen_step) if s is not None]
    step = facts.step if facts.step is not None else max(candidates, default=0)
    if step < run.record.steps:
        raise StoppedShort(f"The adapter is of step {step}, not {run.record.steps}. {log}")
    return facts


def check_trained(path: Path, log: str) -> AdapterFacts:
    """What is in an adapter that was trained: it loads, holds numbers, and is no longer what it was.

    Raises:
        TrainerError: it is not, and why; `log` is the sentence that names the log.
    """
    facts = read_adapter(path)
    _check_weights(facts, log)
    return facts


def _check_weights(facts: AdapterFacts, log: str) -> None:
    if not facts.finite:
        raise TrainerError(
            f"The adapter's weights are not numbers (NaN): training went wrong on the way. {log}",
            fix="Lower [train] learning_rate to a half or less, then `fluxkit train --fresh`. An earlier checkpoint "
            "may be good: `fluxkit sample --checkpoint N`.",
        )
    if facts.unchanged == facts.modules:
        raise TrainerError(
            f"The adapter is as it was before the first step: nothing was learned. {log}",
            fix="Check [train] learning_rate and the optimizer, then `fluxkit train --fresh`.",
        )
