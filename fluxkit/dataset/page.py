"""`validate --html`: the report as one page that needs nothing else, made to be looked at in a browser."""

import base64
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fluxkit.dataset.model import DatasetReport, Finding, ImageFacts
from fluxkit.dataset.preview import Crop, Picture, TrainingPreview, read_caption
from fluxkit.dataset.previewreport import byte_size, duration, preview_lines, shown_path
from fluxkit.dataset.thumbnails import thumbnail_edge, thumbnails
from fluxkit.files import write_text
from fluxkit.resources import resource

_ORDER = ("error", "warning", "info", "clean")
_SAME_BOX = 0.01  # of the photo's edge: boxes nearer than that are drawn as one


def write_page(path: Path, report: DatasetReport, preview: TrainingPreview, *, title: str = "") -> int:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        report: what was found.
        preview: what training will see.
        title: the page's heading; the folder's name by default.

    Returns:
        Its size in bytes.

    Raises:
        UserError: it can't be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resource("templates", "validate.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    page = environment.get_template("validate.html.j2").render(
        _context(report, preview),
        title=title or report.folder.name,
        script=script,
        script_digest=digest,
    )
    # Captions and file names may hold what no UTF-8 file takes.
    data = page.encode("utf-8", "replace").decode("utf-8")
    write_text(path, data)
    return len(data.encode("utf-8"))


def _context(report: DatasetReport, preview: TrainingPreview) -> dict[str, Any]:
    edge = thumbnail_edge(len(report.images))
    small = thumbnails((facts.path for facts in report.images), edge)
    about_files, about_folder = _by_file(report)
    cards = _cards(report, preview, about_files, small)
    counts = Counter(severity for card in cards for severity in card["severities"])
    codes = Counter(code for card in cards for code in {found["code"] for found in card["findings"]})
    return {
        "folder": shown_path(report.folder, report.folder),
        "ok": report.ok,
        "photos": len(report.images),
        "totals": {severity: len(report.of(severity)) for severity in ("error", "warning", "info")},
        "cards": cards,
        "counts": {severity: counts[severity] for severity in _ORDER},
        "codes": sorted(codes.items()),
        "about_folder": [
            _finding(finding)
            | {"path": "" if finding.path == report.folder else shown_path(finding.path, report.folder)}
            for finding in about_folder
        ],
        "resolutions": [bucket.resolution for bucket in preview.buckets],
        "training": _training(preview),
        "trigger": preview.rules.trigger if preview.rules.captions == "trigger" else None,
        "thumbnail_edge": edge,
    }


def _training(preview: TrainingPreview) -> dict[str, Any] | None:
    if not preview.steps_per_epoch:
        return None
    epochs = f"{preview.epochs:,.0f}" if preview.epochs >= 10 else f"{preview.epochs:.2g}"
    facts = [
        ("Steps", f"{preview.rules.steps:,}"),
        ("Each photo is shown", f"≈ {preview.views:,.0f}×"),
        ("Epochs", epochs),
        ("Photo cache", f"≤ {byte_size(preview.vae_bytes)}"),
        ("Caption cache", f"≤ {byte_size(preview.text_bytes)}"),
        ("Time", "not known" if preview.seconds is None else f"≈ {duration(preview.seconds)}"),
    ]
    return {"facts": facts, "lines": preview_lines(preview), "release": preview.rules.release}


def _by_file(report: DatasetReport) -> tuple[dict[Path, list[Finding]], list[Finding]]:
    """Findings by the picture they are about (a caption's belong to its picture), and those about the folder."""
    owners = {facts.path.with_suffix(".txt"): facts.path for facts in report.images}
    files: dict[Path, list[Finding]] = defaultdict(list)
    folder = []
    for finding in report.findings:
        inside = finding.path != report.folder and finding.path.is_relative_to(report.folder)
        if not inside or os.path.isdir(finding.path):  # noqa: PTH112  # never raises, whatever lies there
            folder.append(finding)
        else:
            files[owners.get(finding.path, finding.path)].append(finding)
    return files, folder


def _cards(
    report: DatasetReport, preview: TrainingPreview, found: Mapping[Path, list[Finding]], small: Mapping[Path, str]
) -> list[dict[str, Any]]:
    facts = {each.path: each for each in report.images}
    pictures = {picture.path: picture for picture in preview.pictures}
    paths = dict.fromkeys((*facts, *found))
    cards = [
        _card(path, report.folder, facts.get(path), pictures.get(path), found.get(path, ()), small.get(path))
        for path in paths
    ]
    return sorted(cards, key=lambda card: _ORDER.index(card["severity"]))


def _card(
    path: Path,
    folder: Path,
    facts: ImageFacts | None,
    picture: Picture | None,
    findings: Iterable[Finding],
    thumbnail: str | None,
) -> dict[str, Any]:
    findings = sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
    return {
        "name": shown_path(path, folder),
        "severity": findings[0].severity if findings else "clean",
        "severities": list(dict.fromkeys(finding.severity for finding in findings)) or ["clean"],
        "findings": [_finding(finding) for finding in findings],
        "facts": facts,
        "picture": picture,
        "boxes": _boxes(facts, picture.crops) if facts and picture else [],
        "thumbnail": thumbnail,
        "caption": read_caption(path) if facts else None,
    }


def _boxes(facts: ImageFacts, crops: Iterable[Crop]) -> list[dict[str, Any]]:
    """Crops in percent of the photo; those that coincide share a box with both resolutions on it."""
    boxes: list[dict[str, Any]] = []
    for crop in crops:
        left, top, right, bottom = crop.box
        place = (left / facts.width, top / facts.height, (right - left) / facts.width, (bottom - top) / facts.height)
        same = next((box for box in boxes if _near(box["place"], place)), None)
        if same:
            same["resolutions"].append(crop.resolution)
        else:
            boxes.append({"place": place, "resolutions": [crop.resolution]})
    return boxes


def _near(one: Iterable[float], other: Iterable[float]) -> bool:
    return all(abs(a - b) < _SAME_BOX for a, b in zip(one, other, strict=True))


def _finding(finding: Finding) -> dict[str, str]:
    return {"code": finding.code, "severity": finding.severity, "message": finding.message, "fix": finding.fix}
