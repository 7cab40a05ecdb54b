"""Findings as text for people."""

from collections.abc import Sequence
from itertools import groupby

from fluxkit.doctor.model import Finding

_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


def report_text(findings: Sequence[Finding]) -> str:
    """One heading a group, one line a finding, its fix below; the count last."""
    lines = []
    for group, members in groupby(findings, key=lambda finding: finding.group):
        lines.append(group)
        for finding in members:
            lines.append(f"  {_MARKS[finding.level]} {finding.message}")
            if finding.fix:
                lines.append(f"      → {finding.fix}")
    return "\n".join([*lines, "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """How many problems and warnings."""
    counts = {level: sum(finding.level == level for finding in findings) for level in ("problem", "warning")}
    said = [f"{count} {level}{'s' * (count != 1)}" for level, count in counts.items() if count]
    return ", ".join(said) if said else "Nothing is wrong."
