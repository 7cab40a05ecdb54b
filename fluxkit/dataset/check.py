"""All checks of a dataset, in one go and one report."""

from pathlib import Path

from fluxkit.dataset.buckets import bucket_findings, simulate_buckets
from fluxkit.dataset.captions import caption_findings
from fluxkit.dataset.images import read_image, size_findings
from fluxkit.dataset.model import DatasetReport, DatasetRules, Finding, ImageFacts
from fluxkit.dataset.scan import scan
from fluxkit.dataset.trigger import trigger_findings

LEAST_IMAGES, RECOMMENDED_IMAGES = 5, 20


def check_dataset(folder: Path, rules: DatasetRules) -> DatasetReport:
    """Check a folder of photos; after a report that is `ok` the trainer finds every one of them."""
    scanned = scan(folder)
    findings = [*scanned.findings, *trigger_findings(rules.trigger, folder)]
    images: list[ImageFacts] = []
    for path in scanned.images:
        facts, found = read_image(path)
        findings += found
        if facts is not None:
            images.append(facts)
            findings += size_findings(facts, rules)
    findings += caption_findings(scanned.images, scanned.captions, rules)
    if scanned.images:
        findings += _count_findings(folder, len(images))
        findings += bucket_findings(folder, simulate_buckets(images, rules), rules)
    return DatasetReport(folder, tuple(findings), tuple(images))


def _count_findings(folder: Path, count: int) -> list[Finding]:
    have = f"{count} usable photo{'' if count == 1 else 's'}"
    if count < LEAST_IMAGES:
        message = f"{have}; {LEAST_IMAGES} are the least."
        return [Finding("dataset.too-few", "error", folder, message, f"Add photos; {RECOMMENDED_IMAGES} are better.")]
    if count < RECOMMENDED_IMAGES:
        message = f"{have}; {RECOMMENDED_IMAGES} give a better likeness."
        fix = "Add photos from other angles, in other clothes, in other light."
        return [Finding("dataset.few", "warning", folder, message, fix)]
    return []
