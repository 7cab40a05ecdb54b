"""What a training takes of the GPU: the profile's measured table, this machine's own measurement, and what follows.

Only figures that were measured under these conditions or smaller ones count as knowledge; what is worked out from them
is an estimate, and is called one.
"""

from collections.abc import Mapping

from fluxkit.fitting.adapter import MEASURED_PARAMETERS, TRAINING_BYTES
from fluxkit.fitting.model import GpuNeed, PhaseNeed, Surety, TrainingPlan
from fluxkit.fitting.store import StoredMeasurement
from fluxkit.rendering.profiles import CONTEXT_GIB, Measured, Profile

_GIB = 2**30
_TEXT_TOKENS = 512  # T5's, beside the picture's own
# T5-XXL in bf16 at work, the same whatever the profile (with 24gb's settings, H200, 2026-11-22).
TEXT_ENCODING_GIB = 9.6
MEASURED_EDGE = 1024  # of the largest pictures in every measurement


def gpu_need(plan: TrainingPlan, stored: StoredMeasurement | None = None) -> GpuNeed:
    """What a training takes of the GPU.

    Args:
        plan: the training.
        stored: these settings, measured on this machine.
    """
    if stored is not None:
        return _measured_here(stored)
    notes = list(_doubts(plan))
    phases = tuple(need if not notes else _doubted(need) for need in _phases(plan))
    exact = all(need.gib == need.at_least for need in phases)
    surety: Surety = "unknown" if plan.unmeasured else "measured profile" if exact and not notes else "estimate"
    return GpuNeed(phases, surety, (*notes, *_estimated(plan, phases)), context_gib=CONTEXT_GIB)


def tokens(edge: int) -> int:
    """Length of the transformer's sequence for a square picture: patches of 16 pixels, and the caption."""
    return (edge // 16) ** 2 + _TEXT_TOKENS


def _measured_here(stored: StoredMeasurement) -> GpuNeed:
    named = {name: gib for name, gib in stored.allocated_gib.items() if not name.startswith("training_step_")}
    phases = tuple(PhaseNeed(name, gib, gib) for name, gib in named.items())
    notes = (f"Measured on this machine on {stored.date}, with the settings as they are.",)
    # What the card had in use beyond PyTorch is not known by itself: the same context as everywhere.
    return GpuNeed(phases, "measured here", notes, "" if stored.ok else stored.ended_in, CONTEXT_GIB)


def _phases(plan: TrainingPlan) -> list[PhaseNeed]:
    measured = plan.profile.measured
    largest = max(plan.resolutions)
    found = []
    for phase, gib in measured.allocated_gib.items():
        if phase.startswith("training_step"):
            continue
        if phase == "validation_image":
            if plan.validation_edge is not None:
                weights = step_line(measured)[0] if len(step_points(measured)) > 1 else 0.0
                at = validation_edge(plan.profile)
                found.append(_at_edge(phase, gib, weights, plan.validation_edge, at, more=_adapter_gib(plan)))
        elif phase == "vae_caching" and not _is_t5(gib, measured):
            found.append(_at_edge(phase, gib, 0.0, largest, MEASURED_EDGE))
        else:
            found.append(PhaseNeed(phase, gib, gib))
    if "text_encoding" not in measured.allocated_gib:
        found.append(PhaseNeed("text_encoding", TEXT_ENCODING_GIB, TEXT_ENCODING_GIB))
    step = _training_step(plan, measured)
    return [*found, step] if step else found


def _is_t5(gib: float, measured: Measured) -> bool:
    """Whether a phase's most was T5, still there when it began: the same whatever the pictures' size."""
    text = measured.allocated_gib.get("text_encoding", 0.0)
    return 0.95 * text <= gib <= text


def validation_edge(profile: Profile) -> int:
    """Edge of the validation images that a profile was measured with, in pixels."""
    given = str(profile.options.get("validation_resolution", MEASURED_EDGE))
    return max(int(number) for number in given.split("x"))


def _at_edge(phase: str, gib: float, weights: float, edge: int, at: int, *, more: float = 0.0) -> PhaseNeed:
    """A phase that was measured at one size of picture: what isn't weights goes with the sequence's length."""
    scaled = weights + (gib - weights) * tokens(edge) / tokens(at)
    known = gib + min(more, 0.0) if edge >= at else 0.0
    return PhaseNeed(phase, (gib if edge == at else scaled) + more, known, edge)


def _training_step(plan: TrainingPlan, measured: Measured) -> PhaseNeed | None:
    points = step_points(measured)
    if not points:
        return None
    edge = max(plan.resolutions)
    more = _adapter_gib(plan)
    smaller = [gib for at, gib in points.items() if at <= edge and measured.batch_size <= plan.batch_size]
    at_least = max(smaller, default=0.0) + min(more, 0.0)
    if edge in points and plan.batch_size == measured.batch_size:
        return PhaseNeed("training_step", points[edge] + more, at_least, edge)
    if len(points) < 2:
        return PhaseNeed("training_step", max(points.values()) + more, at_least, edge)
    weights, slope = step_line(measured)
    return PhaseNeed("training_step", weights + slope * tokens(edge) * plan.batch_size + more, at_least, edge)


def step_line(measured: Measured) -> tuple[float, float]:
    """A line through the measured steps, in GiB: weights and what doesn't grow, and what each token of a picture takes.

    Activations grow with the sequence and the batch, weights don't. There must be two steps at least.
    """
    points = step_points(measured)
    (low, low_gib), (high, high_gib) = min(points.items()), max(points.items())
    slope = (high_gib - low_gib) / (tokens(high) - tokens(low)) / measured.batch_size
    return low_gib - slope * tokens(low) * measured.batch_size, slope


def step_points(measured: Measured) -> Mapping[int, float]:
    """The measured training steps: GiB by the picture's edge."""
    prefix = "training_step_"
    return {
        int(name.removeprefix(prefix)): gib for name, gib in measured.allocated_gib.items() if name.startswith(prefix)
    }


def _adapter_gib(plan: TrainingPlan) -> float:
    """What the adapter takes more (or less) than the measured one: weights, gradients, the optimizer's three states."""
    if plan.adapter_parameters is None:
        return 0.0
    return (plan.adapter_parameters - MEASURED_PARAMETERS) * TRAINING_BYTES / _GIB


def _doubted(need: PhaseNeed) -> PhaseNeed:
    return PhaseNeed(need.phase, need.gib, 0.0, need.edge)


def _doubts(plan: TrainingPlan) -> list[str]:
    """Why the profile's figures may not be these settings' at all: none of them is knowledge then."""
    measured = plan.profile.measured
    doubts = []
    if plan.unmeasured:
        names = ", ".join(plan.unmeasured)
        doubts.append(f"The profile {plan.profile.name} was not measured with these settings of yours: {names}.")
    if plan.release != measured.simpletuner:
        doubts.append(f"It was measured with SimpleTuner {measured.simpletuner}, not {plan.release}.")
    if plan.adapter_parameters is None:
        doubts.append("It was measured with the default LoKr; the size of this adapter is not counted.")
    return doubts


def _estimated(plan: TrainingPlan, phases: tuple[PhaseNeed, ...]) -> list[str]:
    """What was worked out rather than measured."""
    measured = plan.profile.measured
    notes = []
    points = step_points(measured)
    edge = max(plan.resolutions)
    if edge not in points or plan.batch_size != measured.batch_size:
        sizes = " and ".join(map(str, sorted(points)))
        notes.append(
            f"A step at {edge} with batch size {plan.batch_size} is worked out from steps at {sizes} with batch size "
            f"{measured.batch_size}."
        )
    if plan.adapter_parameters not in (None, MEASURED_PARAMETERS):
        notes.append(
            f"The adapter has {plan.adapter_parameters / 1e6:.1f} M parameters, the measured one "
            f"{MEASURED_PARAMETERS / 1e6:.1f} M."
        )
    at = validation_edge(plan.profile)
    if plan.validation_edge is not None and plan.validation_edge != at:
        notes.append(f"Validation images were measured at {at}, not at {plan.validation_edge}.")
    absent = [name for name in ("text_encoding", "vae_caching", "load") if name not in {one.phase for one in phases}]
    if absent:
        notes.append(f"Not measured by itself: {', '.join(name.replace('_', ' ') for name in absent)}.")
    return notes
