"""What a run reports, whichever way it came: a stage, a step, a complete checkpoint."""

from dataclasses import dataclass

from fluxkit.trainer.progress import Step

TRAINING = "Training"
READING = "Reading the dataset"
ENCODING = "Encoding captions"
CACHING = "Caching latents"
LOADING = "Loading the base model"
PREPARING = "Preparing the model"
RESUMING = "Resuming from the checkpoint"
VALIDATING = "Making validation images"
SAVING = "Saving a checkpoint"
FINISHING = "Saving the final weights"
ENDED = "Ended"


@dataclass(frozen=True)
class Stage:
    """What the trainer does now.

    Args:
        name: for people; the same whichever way it was learnt.
        done: how much of `total`, where the trainer counts.
        total: how much there is.
    """

    name: str
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Counter:
    """Where the optimizer stands, without a loss: at the start, after a resume."""

    step: int
    total: int | None


@dataclass(frozen=True)
class Saved:
    """The checkpoint of `step` is complete."""

    step: int


Event = Stage | Counter | Step | Saved
