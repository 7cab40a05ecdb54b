"""What would make a training fit, the cheapest change first: each one is judged like the training itself."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fluxkit.errors import UserError
from fluxkit.fitting.adapter import CHECKPOINT_BYTES, MEASURED_PARAMETERS
from fluxkit.fitting.memory import gpu_need
from fluxkit.fitting.model import Change, DiskNeed, TrainingPlan
from fluxkit.hardware import Gpu
from fluxkit.rendering.profiles import Profile, load_profile, profile_names

MOST = 3
_GIB = 2**30


def gpu_changes(plan: TrainingPlan, gib: float) -> tuple[Change, ...]:
    """The three cheapest changes after which the training is expected to fit `gib` of GPU memory."""
    fitting = []
    for changed, change in _candidates(plan):
        need = gpu_need(changed)
        if need.gib is not None and need.gib <= gib:
            fitting.append(Change(change.title, f"{change.cost} About {need.gib:.1f} GiB."))
    return tuple(fitting[:MOST])


def _candidates(plan: TrainingPlan) -> Iterator[tuple[TrainingPlan, Change]]:
    """Changes and the training that each leads to, the cheapest first."""
    if plan.validation_edge is not None and plan.can_skip_validation:
        yield (
            replace(plan, validation_edge=None),
            Change(
                "Set validation_disable = true in [train.options].",
                "No pictures while it trains; the adapter stays the same.",
            ),
        )
    if plan.batch_size > 1:
        yield (
            replace(plan, batch_size=1),
            Change(
                "Set train_batch_size = 1 in [train.options].",
                f"A step sees one picture instead of {plan.batch_size}: it takes more steps to see as many.",
            ),
        )
    smaller = [replace(plan, profile=profile) for profile in _smaller(plan)]
    for other in smaller:
        title = f'Set profile = "{other.profile.name}" in [train].'
        yield other, Change(title, _cost_of_profile(plan, other.profile))
    rest = tuple(sorted(plan.resolutions)[:-1])
    for one in (plan, *smaller) if rest else ():
        profile = "" if one is plan else f' and profile = "{one.profile.name}" in [train]'
        validation = None if one.validation_edge is None else max(rest)
        yield (
            replace(one, resolutions=rest, validation_edge=validation),
            Change(
                f"Set resolutions = {list(rest)} in [dataset]{profile}.",
                "The finest detail, skin and hair, is not learnt at its full size.",
            ),
        )


def _smaller(plan: TrainingPlan) -> list[Profile]:
    """The profiles that were measured to take less, the largest of them first."""
    others = []
    for name in profile_names():
        try:
            others.append(load_profile(name))
        except UserError:
            continue
    less = [one for one in others if one.measured.peak_allocated_gib < plan.profile.measured.peak_allocated_gib]
    return sorted(less, key=lambda one: -one.measured.peak_allocated_gib)


def _cost_of_profile(plan: TrainingPlan, other: Profile) -> str:
    edge = max(plan.resolutions)
    mine = plan.profile.measured.seconds_per_step.get(edge)
    theirs = other.measured.seconds_per_step.get(edge)
    precision = other.options.get("base_model_precision", "no_change")
    kind = f"The base model is held as {precision}, a little less exact"
    if mine is None or theirs is None:
        return f"{kind}."
    return f"{kind}; a step took {theirs:.2f} s instead of {mine:.2f} on an {other.measured.gpu}."


def close_programs(gpu: Gpu, gib: float) -> Change:
    """Free what others hold."""
    holders = [f"{one.name or 'a program'} (process {one.pid})" for one in gpu.processes]
    named = f": {', '.join(holders)}" if holders else ", a desktop, a browser or another training"
    return Change(f"Close what else uses the card{named}.", f"It costs nothing; {gib:.1f} GiB more must be free.")


def memory_changes(plan: TrainingPlan, gib: float) -> tuple[Change, ...]:
    """The three cheapest changes after which the training is expected to fit `gib` of RAM and swap."""
    found = [
        Change(
            f'Set profile = "{one.name}" in [train].',
            f"{_cost_of_profile(plan, one)} It held {one.measured.host_gib:.0f} GiB.",
        )
        for one in _smaller(plan)
        if one.measured.host_gib <= gib
    ]
    missing = plan.profile.measured.host_gib - gib
    found.append(Change(f"Add {missing:.0f} GiB of swap or more.", "Loading is slow; training itself hardly."))
    found.append(Change("Add RAM, or train on a machine with more.", "It costs money."))
    return tuple(found[:MOST])


def disk_changes(plan: TrainingPlan, needs: Sequence[DiskNeed], missing: int) -> tuple[Change, ...]:
    """The three cheapest changes after which the training is expected to fit the disk."""
    found = []
    one = (plan.adapter_parameters or MEASURED_PARAMETERS) * CHECKPOINT_BYTES
    fewer = plan.checkpoints - -(-missing // one)
    if fewer >= 2:  # the one that is kept, and the next one while it is written
        found.append(
            Change(
                f"Set checkpoints_total_limit = {fewer - 1} in [train.options].",
                "Fewer steps to choose from, and to go back to.",
            )
        )
    found.append(
        Change(f"Free {missing / 1e9:.1f} GB on that disk.", "It costs nothing, where there is something to delete.")
    )
    if any(need.use == "the model" for need in needs):
        found.append(Change("Set HF_HOME to a folder on a bigger disk: the model goes there.", "It costs nothing."))
    else:
        found.append(Change("Move the project's folder to a bigger disk.", "It costs nothing."))
    return tuple(found[:MOST])
