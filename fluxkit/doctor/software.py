"""The project, its lock, the trainers that are installed, the model hub, and what sampling needs."""

from collections.abc import Iterator

from fluxkit.doctor.model import CachedEnvironment, Facts, Finding, Level
from fluxkit.errors import UserError
from fluxkit.hub import HubUnreachable
from fluxkit.rendering.profiles import load_profile


def check_project(facts: Facts) -> Iterator[Finding]:
    """Whether the project can be read, and what its pin resolved to."""
    group = "Project"
    if facts.project_error:
        yield Finding(group, "problem", facts.project_error.message, facts.project_error.fix)
    if facts.project is None or facts.pin is None:
        return
    try:
        load_profile(facts.project.config.train.profile)
    except UserError as error:
        yield Finding(group, "problem", error.message, error.fix)
    yield Finding(group, "ok", f"{facts.project.config.project.name} in {facts.project.root}")
    pin = f"SimpleTuner {facts.pin.version} ({facts.pin.platform}, source {facts.pin.source})"
    if facts.lock_error:
        yield Finding(group, "problem", facts.lock_error.message, facts.lock_error.fix)
    elif facts.lock is None:
        yield Finding(group, "warning", f"{pin} is not resolved yet.", "Run `fluxkit install`.")
    elif facts.in_lock_file and facts.lock not in facts.in_lock_file.values():
        held = ", ".join(sorted({f"{one.release.version} ({one.platform})" for one in facts.in_lock_file.values()}))
        yield Finding(
            group,
            "warning",
            f"fluxkit.toml asks for {pin}; fluxkit.lock holds {held}.",
            "Run `fluxkit install`: it brings them together.",
        )
    else:
        lock = facts.lock
        kept = "in fluxkit.lock" if facts.in_lock_file else "not yet in fluxkit.lock"
        tested = "shipped with fluxkit" if lock.origin == "shipped" else "resolved for this project"
        as_of = f" as of {lock.as_of}" if lock.as_of else ""
        yield Finding(group, "ok", f"{pin}: {tested}{as_of}, lock {lock.digest[:12]}, {kept}")


def check_environments(facts: Facts) -> Iterator[Finding]:
    """Each trainer in the cache; the project's must be whole."""
    if facts.environment and facts.own_environment is None:
        yield Finding("Trainers", "warning", "This project's trainer is not installed yet.", "Run `fluxkit install`.")
    for one in facts.environments:
        yield _environment(one, mine=one == facts.own_environment)


def _environment(one: CachedEnvironment, *, mine: bool) -> Finding:
    whose = "used by this project" if mine else "not used by this project"
    title = f"{one.root.name}, {one.size / 1e9:.1f} GB, {whose}"
    # A command to paste; nothing is removed by a report.
    remove = f"Remove it with: rm -r {one.root}"
    if one.state == "ready":
        return Finding("Trainers", "ok", f"{title}: ready", "" if mine else f"If no project needs it: rm -r {one.root}")
    if one.state == "building":
        return Finding("Trainers", "ok", f"{title}: being installed by another fluxkit")
    if one.state == "half-built":
        return Finding(
            "Trainers",
            "warning",
            f"{title}: half-built, an install was stopped",
            "Run `fluxkit install`." if mine else remove,
        )
    more = f" and {len(one.damage) - 3} more" if len(one.damage) > 3 else ""
    return Finding(
        "Trainers",
        "problem" if mine else "warning",
        f"{title}: damaged: {', '.join(one.damage[:3])}{more}",
        "Run `fluxkit install`: it is installed again." if mine else f"{remove}, or let its project install it again.",
    )


def check_hub(facts: Facts) -> Iterator[Finding]:
    """Token, and access to the base model."""
    group = "Model hub"
    if facts.token:
        yield Finding(group, "ok", "A Hub token is set up")
    else:
        yield Finding(
            group,
            "ok" if facts.hub is None and facts.project else "warning",
            "No Hub token is set up",
            "" if facts.hub is None and facts.project else "FLUX.1-dev needs one: run `hf auth login`.",
        )
    if facts.hub == "skipped":
        yield Finding(group, "ok", f"Access to {facts.base} was not asked for")
    elif isinstance(facts.hub, UserError):
        level: Level = "warning" if isinstance(facts.hub, HubUnreachable) else "problem"
        yield Finding(group, level, facts.hub.message, facts.hub.fix)
    else:
        yield Finding(group, "ok", f"{facts.base} may be read")


def check_sampling(facts: Facts) -> Iterator[Finding]:
    """The libraries of `fluxkit[sample]`."""
    missing = [name for name, version in facts.sampling.items() if version is None]
    if missing:
        yield Finding(
            "Sampling",
            "warning",
            f"Not installed: {', '.join(missing)}. `fluxkit sample` and rehearsals need them.",
            "Run `pip install 'fluxkit[sample]'`.",
        )
    else:
        yield Finding("Sampling", "ok", ", ".join(f"{name} {version}" for name, version in facts.sampling.items()))
