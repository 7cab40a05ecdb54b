"""What would make a training fit, the cheapest change first: each one is judged like the training itself."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

from fluxkit.errors import UserError
from fluxkit.fitting.adapter import CHECKPOINT_BYTES, MEASURED_PARAMETERS
from fluxkit.fitting.memory import gpu_need, validation_edge
from fluxkit.fitting.model import Change, DiskNeed, TrainingPlan
from fluxkit.hardware import Gpu
from fluxkit.rendering.profiles import Profile, class_profiles, load_profile, profile_names

MOST = 3
_GIB = 2**30


def gpu_changes(plan: TrainingPlan, gib: float) -> tuple[Change, ...]:
    """The three cheapest changes after which the training is expected to fit `gib` of GPU memory.

    Single ones first, in the order of what they cost, then two or three together where none of them is enough.
    """
    fitting: list[tuple[frozenset[str], Change]] = []
    for count in (1, 2, 3):
        for several in combinations(_single_changes(plan), count):
            names = frozenset(kind for kind, _, _ in several)
            if len(names) < count or any(enough <= names for enough, _ in fitting):
                continue  # two other profiles at once, or more than is needed
            changed = plan
            for _, apply, _ in several:
                changed = apply(changed)
            need = gpu_need(changed)
            if need.gib is not None and need.gib <= gib:
                title = " ".join(change.title for _, _, change in several)
                cost = " ".join(change.cost for _, _, change in several)
                fitting.append((names, Change(title, f"{cost} About {need.gib:.1f} GiB.")))
    return tuple(change for _, change in fitting[:MOST])


def _single_changes(plan: TrainingPlan) -> list[tuple[str, Callable[[TrainingPlan], TrainingPlan], Change]]:
    """What kind of change, what it makes of a training, and how to say it; the cheapest first."""
    found: list[tuple[str, Callable[[TrainingPlan], TrainingPlan], Change]] = []
    if plan.validation_edge is not None and plan.can_skip_validation:
        change = Change(
            "Set validation_disable = true in [train.options].",
            "No pictures while it trains; the adapter stays the same.",
        )
        found.append(("validation", lambda one: replace(one, validation_edge=None), change))
    if plan.batch_size > 1:
        change = Change(
            "Set train_batch_size = 1 in [train.options].",
            f"A step sees one picture instead of {plan.batch_size}: it takes more steps to see as many.",
        )
        found.append(("batch", lambda one: replace(one, batch_size=1), change))
    for profile in _smaller(plan):
        change = Change(f'Set profile = "{profile.name}" in [train].', _cost_of_profile(plan, profile))
        found.append(("profile", partial(_with_profile, profile), change))
    for count in range(len(plan.resolutions) - 1, 0, -1):
        rest = tuple(sorted(plan.resolutions)[:count])
        change = Change(
            f"Set resolutions = {list(rest)} in [dataset].",
            "The finest detail, skin and hair, is not learnt at its full size.",
        )
        found.append(("resolutions", partial(_with_resolutions, rest), change))
    return found


def _with_profile(profile: Profile, plan: TrainingPlan) -> TrainingPlan:
    # Its validation images come with it; smaller ones that were asked for stay.
    edge = None if plan.validation_edge is None else min(plan.validation_edge, validation_edge(profile))
    # And so do its photos a step, unless other ones were asked for.
    own = plan.batch_size == plan.profile.measured.batch_size
    batch = profile.measured.batch_size if own else plan.batch_size
    return replace(plan, profile=profile, validation_edge=edge, batch_size=batch)


def _with_resolutions(resolutions: tuple[int, ...], plan: TrainingPlan) -> TrainingPlan:
    validation = None if plan.validation_edge is None else min(plan.validation_edge, max(resolutions))
    return replace(plan, resolutions=resolutions, validation_edge=validation)


def _smaller(plan: TrainingPlan) -> list[Profile]:
    """The profiles that were measured to take less of the card, the largest of them first."""
    most = plan.profile.measured.peak_allocated_gib
    return [one for one in _others(plan, class_profiles()) if one.measured.peak_allocated_gib < most]


def _of_less_memory(plan: TrainingPlan) -> list[Profile]:
    """The profiles that were measured to take less RAM and no more of the card, the most of the card first.

    Those of a class that only who names them gets are among them: `12gb-nf4` takes less RAM than `12gb`.
    """
    now = plan.profile.measured
    return [
        one
        for one in _others(plan, profile_names())
        if one.measured.host_gib < now.host_gib and one.measured.peak_reserved_gib <= now.peak_reserved_gib
    ]


def _others(plan: TrainingPlan, names: Sequence[str]) -> list[Profile]:
    """These profiles as the release gets them, each once, the most of the card first."""
    found: dict[str, Profile] = {}
    for name in names:
        with contextlib.suppress(UserError):
            profile = load_profile(name, plan.release)
            found[profile.name] = profile
    return sorted(found.values(), key=lambda one: -one.measured.peak_allocated_gib)


def _cost_of_profile(plan: TrainingPlan, other: Profile) -> str:
    edge = max(plan.resolutions)
    mine = plan.profile.measured.seconds_per_step.get(edge)
    theirs = other.measured.seconds_per_step.get(edge)
    kind = _how_other(plan, other)
    if mine is None or theirs is None:
        return f"{kind}."
    now, then = (one.measured for one in (plan.profile, other))
    if now.date != then.date:  # perhaps another machine, or the same one in another state
        return f"{kind}; a step took {theirs:.2f} s on an {then.gpu} ({then.date}), as it is {mine:.2f} s ({now.date})."
    return f"{kind}; a step took {theirs:.2f} s instead of {mine:.2f} on an {then.gpu}."


def _how_other(plan: TrainingPlan, other: Profile) -> str:
    """What else changes with the profile: how exact the base model is, and how many photos a step sees."""
    precision, now = (one.options.get("base_model_precision", "no_change") for one in (other, plan.profile))
    kind = "" if precision == now else f"The base model is held as {precision}, a little less exact"
    batch = _with_profile(other, plan).batch_size
    if batch == plan.batch_size:
        return kind or f"The base model stays {precision}"
    photos = f"a step sees {batch} photo{'s' if batch > 1 else ''} instead of {plan.batch_size}, so it takes more steps"
    return f"{kind}; {photos}" if kind else photos[0].upper() + photos[1:]


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
        for one in _of_less_memory(plan)
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
