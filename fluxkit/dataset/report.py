"""A dataset's report, for people and for programs (docs/validate-json.md)."""

from collections import Counter
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from fluxkit.console import printable
from fluxkit.dataset.model import DatasetReport, Finding, ImageFacts

# Raised when a field of the JSON document changes its meaning or goes; new fields may come without.
JSON_VERSION = 1
_ORDER = ("error", "warning", "info")
_HEADINGS = {"error": "Errors", "warning": "Warnings", "info": "Good to know"}
# Of one code; a folder of 20,000 photos is no terminal's business.
_MOST_LINES = 20


def report_text(report: DatasetReport) -> str:
    """The report in lines: by severity, then by file, each with its fix; the totals last."""
    lines: list[str] = []
    findings = sorted(report.findings, key=lambda finding: _ORDER.index(finding.severity))
    for severity, group in groupby(findings, key=lambda finding: finding.severity):
        lines.append(f"{_HEADINGS[severity]}:")
        told: Counter[str] = Counter()
        for finding in group:
            told[finding.code] += 1
            if told[finding.code] <= _MOST_LINES:
                lines += _finding_lines(finding, report.folder)
        for code, count in told.items():
            if count > _MOST_LINES:
                lines.append(f"  … and {count - _MOST_LINES} more of {code}: `fluxkit validate --json` lists them.")
        lines.append("")
    return "\n".join([*lines, summary(report)])


def summary(report: DatasetReport) -> str:
    """One line: how many photos, how many findings of each severity."""
    counts = [_plural(len(report.images), "readable photo")]
    counts += [_plural(len(report.of("error")), "error"), _plural(len(report.of("warning")), "warning")]
    return f"{printable(str(report.folder))}: {', '.join(counts)}"


def report_dict(report: DatasetReport) -> dict[str, Any]:
    """The report as JSON data; paths are relative to the dataset's folder."""
    counts = {"errors": len(report.of("error")), "warnings": len(report.of("warning")), "infos": len(report.of("info"))}
    return {
        "version": JSON_VERSION,
        "ok": report.ok,
        "folder": str(report.folder),
        "counts": {"images": len(report.images), **counts},
        "images": [_image_dict(facts, report.folder) for facts in report.images],
        "findings": [_finding_dict(finding, report.folder) for finding in report.findings],
    }


def _finding_lines(finding: Finding, folder: Path) -> list[str]:
    lines = [f"  {printable(_relative(finding.path, folder))}: {printable(finding.message)} [{finding.code}]"]
    return [*lines, f"    → {printable(finding.fix)}"] if finding.fix else lines


def _image_dict(facts: ImageFacts, folder: Path) -> dict[str, Any]:
    return asdict(facts) | {"path": _relative(facts.path, folder)}


def _finding_dict(finding: Finding, folder: Path) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": _relative(finding.path, folder),
        "message": finding.message,
        "fix": finding.fix,
        "related": [_relative(path, folder) for path in finding.related],
    }


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path != folder and path.is_relative_to(folder) else str(path)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
