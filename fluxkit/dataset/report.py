"""A dataset's report, for people and for programs."""

from itertools import groupby
from pathlib import Path
from typing import Any

from fluxkit.dataset.model import DatasetReport, Finding

_ORDER = ("error", "warning", "info")
_HEADINGS = {"error": "Errors", "warning": "Warnings", "info": "Good to know"}


def report_text(report: DatasetReport) -> str:
    """The report in lines: by severity, then by file, each with its fix; the totals last."""
    lines: list[str] = []
    findings = sorted(report.findings, key=lambda finding: _ORDER.index(finding.severity))
    for severity, group in groupby(findings, key=lambda finding: finding.severity):
        lines.append(f"{_HEADINGS[severity]}:")
        for finding in group:
            lines.append(f"  {_shown(finding.path, report.folder)}: {finding.message}")
            if finding.fix:
                lines.append(f"    → {finding.fix}")
        lines.append("")
    return "\n".join([*lines, summary(report)])


def summary(report: DatasetReport) -> str:
    """One line: how many photos, how many findings of each severity."""
    counts = [_plural(len(report.images), "readable photo")]
    counts += [_plural(len(report.of("error")), "error"), _plural(len(report.of("warning")), "warning")]
    return f"{report.folder}: {', '.join(counts)}"


def report_dict(report: DatasetReport) -> dict[str, Any]:
    """The report as JSON data; paths are relative to the dataset's folder."""
    return {
        "ok": report.ok,
        "folder": str(report.folder),
        "images": [
            {"path": _shown(facts.path, report.folder), "width": facts.width, "height": facts.height}
            | {"format": facts.format, "orientation": facts.orientation}
            for facts in report.images
        ],
        "findings": [_finding_dict(finding, report.folder) for finding in report.findings],
    }


def _finding_dict(finding: Finding, folder: Path) -> dict[str, str]:
    shown = {"path": _shown(finding.path, folder), "message": finding.message, "fix": finding.fix}
    return {"code": finding.code, "severity": finding.severity, **shown}


def _shown(path: Path, folder: Path) -> str:
    shown = str(path.relative_to(folder)) if path != folder and path.is_relative_to(folder) else str(path)
    # A file name may hold bytes that are no UTF-8 (surrogates in Python), which no terminal or JSON file takes.
    return shown.encode("utf-8", "replace").decode("utf-8")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
