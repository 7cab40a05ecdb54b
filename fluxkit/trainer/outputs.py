"""Proof that a run succeeded: its adapter loads, holds the expected modules, and is of the last step.

The trainer's exit code proves nothing: `train.sh` ends in `exit 0` in every release, and releases up to 3.3.4 print
a traceback and exit 0 ("Training complete" after a failure: fluxgym #247, #442, #465).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import TrainerError
from fluxkit.trainer.runs import Run


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter's file says, without loading its weights.

    Args:
        modules: adapted modules.
        kind: `lycoris` or `standard` (PEFT's `lora_A`/`lora_B`).
        step: the optimizer step written in its metadata; None where the release writes none.
    """

    modules: int
    kind: str
    step: int | None


def read_adapter(path: Path) -> AdapterFacts:
    """Read an adapter's header; safetensors checks it against the file's length, so a truncated file is caught.

    Raises:
        TrainerError: the file is missing, damaged, or no adapter.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            keys = list(handle.keys())
            metadata = handle.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainerError(f"The adapter {path} can't be read: {error}", fix="Look at the run's log.") from error
    lycoris = {key.rsplit(".", 1)[0] for key in keys if key.startswith("lycoris_")}
    peft = {key.split(".lora_")[0] for key in keys if ".lora_A." in key or ".lora_B." in key}
    modules = lycoris or peft
    if not modules:
        raise TrainerError(f"{path} holds no adapter weights ({len(keys)} tensors).", fix="Look at the run's log.")
    step = metadata.get("global_step", "")
    return AdapterFacts(len(modules), "lycoris" if lycoris else "standard", int(step) if step.isdigit() else None)


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
        raise TrainerError(f"SimpleTuner failed with exit code {returncode}. {log}")
    if not run.final_weights.is_file():
        raise TrainerError(f"SimpleTuner ended without an error, but wrote no final weights. {log}")
    facts = read_adapter(run.final_weights)
    if expected_modules is not None and facts.modules != expected_modules:
        raise TrainerError(
            f"The adapter has {facts.modules} modules where {expected_modules} were expected. {log}",
            fix="Check [lycoris] in fluxkit.toml; without it, this is a change in SimpleTuner: please report it.",
        )
    candidates = [s for s in (facts.step, last_saved_step(run), seen_step) if s is not None]
    step = facts.step if facts.step is not None else max(candidates, default=0)
    if step < run.record.steps:
        raise TrainerError(f"The adapter is of step {step}, not {run.record.steps}. {log}")
    return facts
