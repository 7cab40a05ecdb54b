"""Stale latents, against the real SimpleTuner 4.8.0: it reads the photos with its own first stages, twice.

In between a photo is replaced under its name and a caption is edited. One resolution's cache is refreshed before the
second reading, the other's is not: that one shows what the trainer does by itself, and that the care is still needed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.commands.assemble import assemble
from fluxkit.project.load import Project
from fluxkit.rendering.render import write_rendered
from fluxkit.sampling.tiny_flux import make_tiny_flux
from fluxkit.trainer.caches import CacheChange, Photos, latents_names, refresh_cache
from tests.dataset import test_preview_proof as preview

pytestmark = pytest.mark.slow

PHOTOS = {"kept.png": (1100, 1200), "replaced.jpg": (1200, 1100), "sub/second.png": (1024, 1024)}
CAPTION = "behitek, in a caption that was edited"


@dataclass(frozen=True)
class Reading:
    """What was cached after a reading: each photo's latents by resolution, and the trainer's own facts."""

    latents: dict[int, dict[str, bytes]]
    facts: dict[int, dict[str, Any]]
    texts: set[str]


@dataclass(frozen=True)
class Both:
    """The two readings, and what the refresh between them found."""

    before: Reading
    after: Reading
    change: CacheChange


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    root = tmp_path_factory.mktemp("stale")
    base = make_tiny_flux(root / "tiny-flux")
    project = preview._project(root / "green", PHOTOS, "[1024, 512]", base)
    run = root / "run"
    made = assemble(project, config_dir=run / "config", output_dir=run / "output", rehearsal=None)
    write_rendered(made.rendered, run / "config")
    documents: Any = made.rendered.documents
    backends = {each["resolution"]: each for each in documents["multidatabackend.json"] if "resolution" in each}
    refresh = {size: lambda each=each: _refresh(project, each, run) for size, each in backends.items()}
    for each in refresh.values():
        each()
    preview._ask_the_trainer(run)
    before = _read(project, backends)
    Image.radial_gradient("L").resize((1300, 1500)).convert("RGB").save(project.dataset_dir / "replaced.jpg")
    (project.dataset_dir / "kept.txt").write_text(CAPTION)
    change = refresh[1024]()
    preview._ask_the_trainer(run)
    return Both(before, _read(project, backends), change)


def _refresh(project: Project, backend: dict[str, Any], run: Path) -> CacheChange:
    return refresh_cache(backend, Photos(project.dataset_dir.resolve(), list(PHOTOS)), run / "output")


def _read(project: Project, backends: dict[int, dict[str, Any]]) -> Reading:
    latents, facts = {}, {}
    for size, backend in backends.items():
        folder = Path(backend["cache_dir_vae"])
        latents[size] = {photo: (folder / latents_names(photo)[0]).read_bytes() for photo in PHOTOS}
        written = json.loads((project.dataset_dir / f"aspect_ratio_bucket_metadata_{backend['id']}.json").read_text())
        facts[size] = {Path(path).name: fact for path, fact in written.items()}
    texts = {path.name for path in (project.cache_dir / "text").rglob("*.pt")}
    return Reading(latents, facts, texts)


def test_only_the_replaced_photo_was_noticed(both: Both) -> None:
    assert (both.change.changed, both.change.added, both.change.gone) == (("replaced.jpg",), (), ())
    assert both.change.dropped == 1


def test_a_photo_replaced_under_its_name_is_encoded_anew(both: Both) -> None:
    before, after = both.before.latents[1024], both.after.latents[1024]
    assert {photo for photo in PHOTOS if before[photo] != after[photo]} == {"replaced.jpg"}
    sizes = [each.facts[1024]["replaced.jpg"]["original_size"] for each in (both.before, both.after)]
    assert sizes == [[1200, 1100], [1300, 1500]]


def test_without_that_the_trainer_goes_on_with_the_old_photo(both: Both) -> None:
    """Upstream's own behaviour; when this fails, trainer/caches.py is no longer needed for that release."""
    assert both.before.latents[512] == both.after.latents[512]
    assert both.after.facts[512]["replaced.jpg"]["original_size"] == [1200, 1100]


def test_an_edited_caption_is_encoded_by_the_trainer_itself(both: Both) -> None:
    name = f"{hashlib.md5(CAPTION.encode()).hexdigest()}-flux.pt"  # noqa: S324  # the trainer's own naming
    assert name not in both.before.texts
    assert name in both.after.texts
