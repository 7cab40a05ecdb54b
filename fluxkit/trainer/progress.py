r"""What SimpleTuner's output says about a run: stages and steps.

The trainer prints tqdm bars, `\r`-separated and coloured: `Epoch 1/1, Steps:  67%|…| 2/3 [00:10<00:05, 5.01s/it,
lr=1e-5, step_loss=0.5]`. Parsing is best effort: a line that is not understood is kept in the log and changes nothing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

# NO_COLOR doesn't stop the trainer's colours, nor those of the libraries that it prints through.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STEP = re.compile(r"Steps:\s*\d+%\|[^|]*\|\s*(?P<step>\d+)/(?P<total>\d+)\s*\[(?P<rest>[^\]]*)")
_PACE = re.compile(r"(?P<number>[\d.]+)(?P<unit>s/it|it/s)")
_FIELD = re.compile(r"(?P<key>step_loss|lr|grad_norm|grad_absmax)=(?P<value>[-+.\deE]+|nan|inf)")

# What the trainer prints when a stage begins, in the order of a run.
_STAGES = (
    ("Reading the dataset", re.compile(r"Configuring data backend:")),
    ("Encoding captions", re.compile(r"Initiali[sz]e text embed pre-computation|Precomputing user prompt library")),
    ("Caching latents", re.compile(r"Creating VAE latent cache|Executing VAE cache update")),
    ("Loading the base model", re.compile(r"Loading diffusion model")),
    ("Quantizing the base model", re.compile(r"Quanti[sz]ing \w+")),
    ("Making the adapter", re.compile(r"Create LyCORIS Module")),
    ("Loading the checkpoint", re.compile(r"Resuming from checkpoint")),
    ("Making validation images", re.compile(r"Processing validation prompts:\s+0%")),
)


@dataclass(frozen=True)
class Step:
    """The state after an optimizer step.

    Args:
        step: steps done.
        total: steps asked for.
        loss: of the last step; not smoothed.
        learning_rate: of the last step.
        seconds_per_step: the trainer's own running mean, where it says one.
        gradient_norm: of the last step, before clipping; the largest gradient where SimpleTuner clips by value.
    """

    step: int
    total: int
    loss: float | None
    learning_rate: float | None
    seconds_per_step: float | None
    gradient_norm: float | None = None


def strip_ansi(line: str) -> str:
    """`line` without terminal colours."""
    return _ANSI.sub("", line)


def parse_step(line: str) -> Step | None:
    """The step that a progress line reports, or None for any other line."""
    match = _STEP.search(strip_ansi(line))
    if match is None:
        return None
    rest = match["rest"]
    fields = {m["key"]: float(m["value"]) for m in _FIELD.finditer(rest) if _is_number(m["value"])}
    pace = _PACE.search(rest)
    seconds = None
    if pace and _is_number(pace["number"]) and float(pace["number"]) > 0:
        seconds = float(pace["number"]) if pace["unit"] == "s/it" else 1 / float(pace["number"])
    return Step(
        step=int(match["step"]),
        total=int(match["total"]),
        loss=fields.get("step_loss"),
        learning_rate=fields.get("lr"),
        seconds_per_step=seconds,
        gradient_norm=fields.get("grad_norm", fields.get("grad_absmax")),
    )


class ProgressReader:
    """Turn output lines into calls: one a stage, one a step.

    Args:
        on_stage: called with a stage's name when it begins.
        on_step: called for each new step.
    """

    def __init__(self, on_stage: Callable[[str], None], on_step: Callable[[Step], None]) -> None:
        self._on_stage = on_stage
        self._on_step = on_step
        self._stage = ""
        self.last: Step | None = None

    def feed(self, line: str) -> None:
        """Read one line of output."""
        step = parse_step(line)
        if step is not None:
            last, self.last = self.last, step
            # tqdm draws a new step first without a loss, or with the loss of the step before.
            stale = last is not None and (last.loss, last.learning_rate) == (step.loss, step.learning_rate)
            if step.step and step.loss is not None and not stale:
                self._stage = ""  # validation may begin again
                self._on_step(step)
            return
        text = strip_ansi(line)
        for name, pattern in _STAGES:
            if pattern.search(text) and name != self._stage:
                self._stage = name
                self._on_stage(name)
                return


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def clock(seconds: float) -> str:
    """A span of time as `m:ss` or `h:mm:ss`."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
