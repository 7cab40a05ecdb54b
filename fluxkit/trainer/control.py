"""Asking the trainer for a checkpoint, where the release can be asked.

From 3.2.1 `train.py` reads counters from the JSON file that SIMPLETUNER_ACCELERATE_SIGNAL_FILE names, whenever its
modification time grows: `manual_checkpoint` larger than before makes a checkpoint after the step under way, complete
with optimizer and state. Read in `train.py` (`_build_signal_consumer`) of 3.2.1, 4.8.0 and 4.10.1; 3.2.0 has none.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from fluxkit.files import write_json
from fluxkit.trainer.runs import ADAPTER_FILE, Run

CAN_BE_ASKED_SINCE = Version("3.2.1")
VARIABLE = "SIMPLETUNER_ACCELERATE_SIGNAL_FILE"
SETTLED_SECONDS = 2.0


@dataclass(frozen=True)
class SignalFile:
    """The file through which one launch is asked.

    Args:
        path: where it lies.
    """

    path: Path

    def reset(self) -> None:
        """Write it anew: a launch counts from 0, and what was asked of an earlier one must not be done again."""
        write_json(self.path, {})

    def ask_for_checkpoint(self) -> None:
        """Have a checkpoint made after the step under way.

        Raises:
            UserError: the file can't be written.
        """
        write_json(self.path, {"manual_checkpoint": 1})


def signal_file(run_folder: Path) -> SignalFile:
    """The signal file of a run."""
    return SignalFile(run_folder / "logs" / "signals.json")


def can_be_asked(release: str) -> bool:
    """Whether a release makes a checkpoint when it is asked to."""
    return Version(release) >= CAN_BE_ASKED_SINCE


def saved_steps(run: Run) -> list[int]:
    """The steps of the run's complete checkpoints, as far as files tell.

    Complete: weights and training state are there (the state is written last), and either the guard that releases
    from 4.3.5 end with, or no file that was written to in the last 2 seconds.
    """
    return [step for step, weights in run.checkpoints().items() if is_complete(weights.parent)]


def is_complete(folder: Path) -> bool:
    """Whether the checkpoint in `folder` is complete, as far as files tell."""
    try:
        if not (folder / ADAPTER_FILE).is_file() or not any(folder.glob("training_state*.json")):
            return False
        if (folder / ".guard").exists():
            return True
        newest = max(path.stat().st_mtime for path in folder.iterdir())
    except OSError:  # moved or deleted meanwhile
        return False
    return time.time() - newest > SETTLED_SECONDS
