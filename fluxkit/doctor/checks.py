"""All checks, in the order of the report. A new one is a function `Facts` → `Finding`s and a line here."""

from collections.abc import Callable, Iterable

from fluxkit.doctor.machine import check_disk, check_gpu, check_memory, check_programs
from fluxkit.doctor.model import Facts, Finding
from fluxkit.doctor.software import check_environments, check_hub, check_project, check_sampling

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_gpu,
    check_memory,
    check_disk,
    check_programs,
    check_project,
    check_environments,
    check_hub,
    check_sampling,
)


def findings(facts: Facts) -> list[Finding]:
    """What every check says."""
    return [finding for check in CHECKS for finding in check(facts)]
