"""The preview against the real SimpleTuner 4.8.0, picture by picture, on what the trainer itself wrote down.

The trainer reads two projects' photos, real settings and a rehearsal's, with its own first stages; it stops before it
would load the transformer (`scripts/probe_dataset.py`).
"""

import json
import math
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxkit.commands.assemble import assemble, open_project
from fluxkit.commands.validate import dataset_rules, validate
from fluxkit.console import Output
from fluxkit.dataset.buckets import seen_size
from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.eras import era_of
from fluxkit.dataset.geometry import is_large_enough, prepare
from fluxkit.dataset.model import DatasetReport
from fluxkit.dataset.preview import TrainingPreview, latent_bytes, preview_training
from fluxkit.project.load import Project
from fluxkit.rendering.render import write_rendered
from fluxkit.rendering.settings import Rehearsal
from fluxkit.sampling.tiny_flux import make_tiny_flux
from fluxkit.trainer import launch
from fluxkit.trainer.shims import shims_for, write_shims
from fluxkit.trainer.topology import Topology
from tests.real import fluxkit, python

PROBE = Path(__file__).resolve().parents[2] / "scripts" / "probe_dataset.py"
MARK = "fluxkit-dataset:"
RELEASE, REPEATS, BATCH, ACCUMULATION = "4.8.0", 3, 2, 2
GREEN = {
    "portrait.jpg": (1067, 1601), "landscape.jpg": (1600, 1067), "square.png": (1200, 1200), "limit.jpg": (1024, 1024),
    "above.png": (1025, 1025), "almost-square.webp": (1200, 1199), "wide.jpeg": (2000, 1030),
}  # fmt: skip
AWKWARD = {
    "too-small.jpg": (1023, 1100), "small.png": (640, 700), "at-1008.png": (1008, 1008), "above-1008.png": (1009, 1009),
    "UPPER.JPG": (1111, 1077), "turned.jpg": (1500, 1100), "mirrored.jpg": (1100, 1300), "tall.jpg": (1024, 2500),
}  # fmt: skip
ORIENTATIONS = {"turned.jpg": 6, "mirrored.jpg": 2}
TOML = """[project]
name = "proof"
trigger = "behitek"
[dataset]
resolutions = {resolutions}
repeats = {repeats}
[model]
base = "{base}"
[train]
steps = 100
[train.options]
train_batch_size = {batch}
gradient_accumulation_steps = {accumulation}
report_to = "none"
[simpletuner]
version = "{release}"
platform = "cpu"
"""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Proof:
    """What fluxkit foresaw and what the trainer did.

    Args:
        projects: by name.
        reports: what the checks found, by project.
        previews: what was foreseen, by project.
        backends: the rendered image backends of each project; those of its rehearsal too.
        told: what the trainer counted.
    """

    projects: dict[str, Project]
    reports: dict[str, DatasetReport]
    previews: dict[str, TrainingPreview]
    backends: dict[str, list[dict[str, Any]]]
    told: dict[str, Any]


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    root = tmp_path_factory.mktemp("proof")
    base = make_tiny_flux(root / "tiny-flux")
    projects = {
        "green": _project(root / "green", GREEN, "[1024, 512]", base),
        "awkward": _project(root / "awkward", AWKWARD, "[1024, 1008, 512]", base),
    }
    reports, previews = {}, {}
    for name, project in projects.items():
        rules = dataset_rules(project.config)
        reports[name] = check_dataset(project.dataset_dir, rules)
        previews[name] = preview_training(reports[name].images, rules)
    run = root / "run"
    backends = _write_config(run, projects, base)
    return Proof(projects, reports, previews, backends, _ask_the_trainer(run))


def _project(root: Path, photos: dict[str, tuple[int, int]], resolutions: str, base: Path) -> Project:
    for name, size in photos.items():
        path = root / "dataset" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if name in ORIENTATIONS:
            exif[0x0112] = ORIENTATIONS[name]
        Image.linear_gradient("L").resize(size).convert("RGB").save(path, exif=exif)
        path.with_suffix(".txt").write_text(f"behitek {name}")
    values = {"resolutions": resolutions, "repeats": REPEATS, "base": base, "release": RELEASE}
    (root / "fluxkit.toml").write_text(TOML.format(batch=BATCH, accumulation=ACCUMULATION, **values))
    (root / "prompts.toml").write_text('[prompts]\none = "{trigger} in the rain"\n')
    return open_project(root)


def _write_config(run: Path, projects: dict[str, Project], base: Path) -> dict[str, list[dict[str, Any]]]:
    """One config with the image backends of every project, as rendered for real and for a rehearsal."""
    backends: dict[str, list[dict[str, Any]]] = {}
    others: list[dict[str, Any]] = []
    for name, project in projects.items():
        for kind, rehearsal in ((name, None), (f"{name} rehearsal", Rehearsal(base=base))):
            made = assemble(project, config_dir=run / "config", output_dir=run / "output", rehearsal=rehearsal)
            documents: Any = made.rendered.documents
            rendered = documents["multidatabackend.json"]
            backends[kind] = [each for each in rendered if each.get("dataset_type") != "text_embeds"]
            others = [each for each in rendered if each.get("dataset_type") == "text_embeds"]
            if kind == "green":
                write_rendered(made.rendered, run / "config")
    together = [each for some in backends.values() for each in some] + others
    (run / "config" / "multidatabackend.json").write_text(json.dumps(together))
    return backends


def _ask_the_trainer(run: Path) -> dict[str, Any]:
    fluxkit("install", "-C", run.parent / "green")
    code = (
        "from fluxkit.trainer.environment import environment_for; from fluxkit.trainer.lock import shipped_lock\n"
        f"from fluxkit.trainer.releases import find_release; release = find_release({RELEASE!r})\n"
        "print(environment_for(shipped_lock(release, 'cpu')).python)"
    )
    interpreter = Path(python("-c", code).strip())
    shims = write_shims(run / "shims", shims_for(RELEASE, rehearsal_without_cuda=True, options={}))
    plan = launch.plan_launch(
        environment_bin=interpreter.parent, run_dir=run, extra_env=shims, offline=True, topology=Topology(use_cpu=True)
    )
    launch.prepare(plan)
    asked = subprocess.run(
        [interpreter, PROBE], cwd=run, env={**plan.env, "HOME": str(run)}, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stdout[-3000:] + asked.stderr[-3000:]
    (line,) = [line for line in asked.stdout.splitlines() if line.startswith(MARK)]
    return dict(json.loads(line.removeprefix(MARK)))


def written(project: Project, backend: dict[str, Any], what: str) -> Any:
    """The trainer's own cache file beside the photos, with file names instead of paths."""
    found = json.loads((project.dataset_dir / f"aspect_ratio_bucket_{what}_{backend['id']}.json").read_text())
    if what == "indices":
        buckets = found["aspect_ratio_bucket_indices"]
        return {bucket: {Path(path).name for path in paths} for bucket, paths in buckets.items() if paths}
    return {Path(path).name: facts for path, facts in found.items()}


def test_the_green_dataset_is_green(proof: Proof, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(proof.projects["green"].root, out=Output()).ok
    assert f"SimpleTuner {RELEASE}" in capsys.readouterr().out


def test_after_a_green_validate_the_trainer_takes_every_photo_and_encodes_it(proof: Proof) -> None:
    assert proof.reports["green"].ok
    for backend in [*proof.backends["green"], *proof.backends["green rehearsal"]]:
        assert written(proof.projects["green"], backend, "indices") == {"1.0": set(GREEN)}
        assert len(list(Path(backend["cache_dir_vae"]).glob("*.pt"))) == len(GREEN)


@pytest.mark.parametrize("name", ["green", "awkward"])
def test_every_crop_is_the_one_that_was_foreseen(proof: Proof, name: str) -> None:
    era = era_of(RELEASE)
    facts = {each.path.name: each for each in proof.reports[name].images}
    compared = 0
    for kind in (name, f"{name} rehearsal"):
        for backend in proof.backends[kind]:
            resolution, rehearsal = backend["resolution"], "rehearsal" in kind
            metadata = written(proof.projects[name], backend, "metadata")
            for photo, has in metadata.items():
                size = seen_size(facts[photo], era)
                made = prepare(size, resolution, era, rehearsal=rehearsal)
                foreseen = {
                    "original_size": list(size),
                    "crop_coordinates": list(made.coordinates(era)),
                    "target_size": list(made.final),
                    "intermediary_size": list(made.intermediary),
                    "aspect_ratio": 1.0,
                }
                assert has == foreseen, (photo, resolution, kind)
                compared += 1
    assert compared > 15


@pytest.mark.parametrize("name", ["green", "awkward"])
def test_the_same_photos_are_left_out_as_was_foreseen(proof: Proof, name: str) -> None:
    for backend in proof.backends[name]:
        resolution = backend["resolution"]
        foreseen = {
            picture.path.name
            for picture in proof.previews[name].pictures
            if any(crop.resolution == resolution for crop in picture.crops)
        }
        assert written(proof.projects[name], backend, "indices") == {"1.0": foreseen}
    (rehearsal,) = proof.backends[f"{name} rehearsal"]
    sizes = {each.path.name: (each.width, each.height) for each in proof.reports[name].images}
    large = {photo for photo, size in sizes.items() if is_large_enough(size, rehearsal["resolution"], rehearsal=True)}
    assert written(proof.projects[name], rehearsal, "indices") == {"1.0": large}


def test_a_photo_of_exactly_1008_pixels_is_left_out_and_that_is_found(proof: Proof) -> None:
    at_1008 = next(each for each in proof.backends["awkward"] if each["resolution"] == 1008)
    taken = written(proof.projects["awkward"], at_1008, "indices")["1.0"]
    assert "above-1008.png" in taken
    assert "at-1008.png" not in taken
    findings = proof.reports["awkward"].findings
    assert [found.path.name for found in findings if found.code == "bucket.left-out"] == ["at-1008.png"]
    assert {found.code for found in findings} >= {"bucket.rounded", "image.too-small"}


def test_a_photo_with_exif_orientation_lies_on_its_side_in_training_and_that_is_found(proof: Proof) -> None:
    (first, *_) = proof.backends["awkward"]
    turned = written(proof.projects["awkward"], first, "metadata")["turned.jpg"]
    assert turned["original_size"] == [1500, 1100], "viewers show it upright, 1100 x 1500"
    found = [each for each in proof.reports["awkward"].findings if each.code == "image.sideways"]
    assert {each.path.name for each in found} == set(ORIENTATIONS)
    assert all(each.severity == "error" for each in found)


def test_an_epoch_has_as_many_steps_as_was_foreseen(proof: Proof) -> None:
    rehearsed = sum(math.ceil(len(each.pictures) * (REPEATS + 1) / BATCH) for each in proof.previews.values())
    batches = sum(each.batches for each in proof.previews.values()) + rehearsed
    assert proof.told["steps_per_epoch"] == math.ceil(batches / ACCUMULATION)


def test_the_latents_on_disk_are_no_larger_than_was_foreseen(proof: Proof) -> None:
    for backend in proof.backends["green"]:
        sizes = [path.stat().st_size for path in Path(backend["cache_dir_vae"]).glob("*.pt")]
        # Without a GPU the trainer keeps float32; the files are compressed by as much as each photo allows.
        assert max(sizes) <= latent_bytes(backend["resolution"], value_bytes=4)
