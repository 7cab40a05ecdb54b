"""All checks of a dataset, in one go and one report."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from fluxkit.dataset.buckets import bucket_findings, simulate_buckets
from fluxkit.dataset.captions import caption_findings
from fluxkit.dataset.checks.cache import MeasureCache
from fluxkit.dataset.checks.engine import measure_all
from fluxkit.dataset.checks.gallery import Gallery
from fluxkit.dataset.checks.people import face_findings, folder_face_findings
from fluxkit.dataset.checks.quality import quality_findings
from fluxkit.dataset.checks.tokens import Tokenizers, trigger_token_findings
from fluxkit.dataset.faces import INSTALL, FaceDetector
from fluxkit.dataset.images import facts_of, size_findings, twin_findings, usable_findings
from fluxkit.dataset.model import DatasetReport, DatasetRules, Finding, ImageFacts
from fluxkit.dataset.scan import scan
from fluxkit.dataset.subjects import is_person
from fluxkit.dataset.trigger import trigger_findings

LEAST_IMAGES, RECOMMENDED_IMAGES = 5, 20


def check_dataset(
    folder: Path,
    rules: DatasetRules,
    *,
    faces: FaceDetector | None = None,
    tokenizers: Tokenizers | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> DatasetReport:
    """Check a folder of photos; after a report that is `ok` the trainer finds every one of them.

    Args:
        folder: the photos and captions.
        rules: what the project asks of them.
        faces: finds faces; without it the face checks report that they were not run.
        tokenizers: count the tokens of captions; without them lengths are estimated.
        cache: a file that remembers measurements, made when it is missing.
        progress: called with how many pictures are done, and of how many.
        workers: threads; None takes one a core.
    """
    scanned = scan(folder)
    findings = [*scanned.findings, *trigger_findings(rules.trigger, folder)]
    findings += twin_findings(scanned.images)
    images: list[ImageFacts] = []
    gallery = Gallery(expected=len(scanned.images))
    detector = faces if is_person(rules.subject) else None
    with closing(MeasureCache(cache, detector.name if detector else None)) as remembered:
        files = measure_all(scanned.images, detector=detector, cache=remembered, workers=workers)
        for done, file in enumerate(files, start=1):
            findings += usable_findings(file.path, file.measured)
            facts = facts_of(file)
            if facts is not None:
                images.append(facts)
                gallery.add(file)
                findings += size_findings(facts, rules)
                findings += quality_findings(file.path, file.measured, rules)
                findings += face_findings(facts, rules)
            if progress:
                progress(done, len(scanned.images))
    findings += gallery.findings(folder, person=is_person(rules.subject))
    findings += caption_findings(folder, scanned.images, scanned.captions, rules, tokenizers=tokenizers)
    if scanned.images:
        findings += _folder_findings(folder, images, rules, detector)
        findings += trigger_token_findings(rules.trigger, folder, tokenizers or Tokenizers())
        findings += bucket_findings(folder, simulate_buckets(images, rules), rules)
    # Honoured or ignored, not both.
    sideways = {finding.path for finding in findings if finding.code == "image.sideways"}
    findings = [one for one in findings if one.code != "image.orientation" or one.path not in sideways]
    return DatasetReport(folder, tuple(findings), tuple(images))


def _folder_findings(
    folder: Path, images: list[ImageFacts], rules: DatasetRules, detector: FaceDetector | None
) -> Iterator[Finding]:
    yield from _count_findings(folder, len(images))
    if detector is not None:
        yield from folder_face_findings(folder, images)
    elif is_person(rules.subject):
        message = "The face checks were not run: OpenCV is not installed."
        yield Finding("face.not-run", "info", folder, message, INSTALL)
    else:
        message = f'The face checks were not run: the subject is "{rules.subject}", no person.'
        yield Finding("face.not-run", "info", folder, message, "If it is a person, say so in [project] subject.")


def _count_findings(folder: Path, count: int) -> Iterator[Finding]:
    have = f"{count} usable photo{'' if count == 1 else 's'}"
    if count < LEAST_IMAGES:
        message = f"{have}; {LEAST_IMAGES} are the least."
        fix = f"Add photos; {RECOMMENDED_IMAGES} are better."
        yield Finding("dataset.too-few", "error", folder, message, fix)
    elif count < RECOMMENDED_IMAGES:
        message = f"{have}; {RECOMMENDED_IMAGES} give a better likeness."
        fix = "Add photos from other angles, in other clothes, in other light."
        yield Finding("dataset.few", "warning", folder, message, fix)
