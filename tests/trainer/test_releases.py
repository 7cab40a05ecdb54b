import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from fluxkit.errors import UserError
from fluxkit.project.config import default_simpletuner
from fluxkit.rendering.profiles import load_profile, profile_names
from fluxkit.resources import resource
from fluxkit.trainer import shims
from fluxkit.trainer.launch import plan_launch
from fluxkit.trainer.releases import Evidence, Release, default_release, defects_of, find_release, releases
from fluxkit.trainer.schema import load_schema

SHIMS = Path(shims.__file__).parent / "_shims"
LISTED = ["4.10.1", "4.8.0", "4.0.6", "3.3.4", "3.1.6", "2.2.1", "2.1.3", "1.3.2", "1.2.5"]


def test_known_releases_newest_first() -> None:
    assert [release.version for release in releases()] == LISTED


@pytest.mark.parametrize("spelling", ["4.8.0", "v4.8.0", " 4.8.0 ", "4.8"])
def test_find_release_takes_usual_spellings(spelling: str) -> None:
    release = find_release(spelling)
    assert (release.version, release.launcher, release.rehearsal, release.listed) == ("4.8.0", "cli", True, True)


def test_the_default_is_the_newest_that_was_measured_on_a_gpu() -> None:
    measured = {load_profile(name).measured.simpletuner for name in profile_names()}
    assert measured == {release.version for release in releases() if release.tested.gpu_measured}
    assert default_release().version == default_simpletuner() == "4.8.0"


@pytest.mark.parametrize(
    ("version", "launcher", "script", "python", "source"),
    [
        ("1.2.1", "train.sh", "train.sh", ">=3.10,<3.12", "git"),
        ("2.0", "train.sh", "train.sh", ">=3.10,<3.13", "git"),
        ("2.2.0", "cli", "simpletuner/train.sh", ">=3.11,<3.13", "pypi"),
        ("3.0.0", "cli", "simpletuner/train.sh", ">=3.11,<3.14", "pypi"),
        ("4.6.1", "cli", "simpletuner/train.sh", ">=3.12,<3.14", "pypi"),
        ("4.9.0", "cli", "simpletuner/train.sh", ">=3.12,<3.14", "pypi"),
        ("5.0.0", "cli", "simpletuner/train.sh", ">=3.12,<3.15", "pypi"),
    ],
)
def test_a_release_that_is_not_listed_is_like_its_era(
    version: str, launcher: str, script: str, python: str, source: str
) -> None:
    release = find_release(version)
    assert (release.version, release.launcher, release.script, release.python) == (version, launcher, script, python)
    assert release.sources[0] == source
    assert not release.listed
    assert version in release.note
    # Nothing is claimed that was not run with it.
    assert (release.locks, release.as_of, release.tested) == ({}, "", Evidence())
    assert (
        set(release.reasons)
        == set(release.constraints)
        == ({"numba>=0.60"} if source == "pypi" and version > "3" else set())
    )


def test_a_newer_release_says_that_it_is_newer() -> None:
    assert "newer than this fluxkit" in find_release("4.11.0").note
    assert "newer" not in find_release("4.9.0").note


@pytest.mark.parametrize(("wanted", "said"), [
    ("latest", "is no version"), ("", "is no version"), ("4.x", "is no version"), ("x4.8.0", '"4.8.0"'),
    ("1.1.4", "too old"), ("0.9", "too old"),
])  # fmt: skip
def test_what_is_no_usable_version_is_an_error_with_a_way_out(wanted: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        find_release(wanted)
    assert "4.8.0" in error.value.fix


@pytest.mark.parametrize(("version", "has"), [
    ("4.10.1", True), ("4.12.0", True), ("4.9.3", True), ("4.9.2", False), ("4.8.0", False),
])  # fmt: skip
def test_a_defect_holds_in_its_span(version: str, has: bool) -> None:
    assert ("tensorboard-hparams" in {defect.id for defect in find_release(version).defects}) is has


def test_every_defect_can_be_acted_on() -> None:
    for defect in (defect for version in ("1.2.5", "3.0.0", "4.8.0", "4.10.1") for defect in defects_of(version)):
        assert defect.reason.endswith((".", ")."))
        if defect.action in ("replace", "refuse"):
            assert defect.option
            assert (defect.replacement is None) is (defect.action == "refuse")
        if defect.action == "shim":
            assert (SHIMS / f"{defect.replacement}.py").is_file()


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_every_release_says_what_a_launch_needs(release: Release) -> None:
    assert release.launcher == ("cli" if "pypi" in release.sources else "train.sh")
    plan = plan_launch(environment_bin=Path("/env/bin"), run_dir=Path("/run"), extra_env={}, offline=True)
    assert set(release.environment) <= set(plan.env)
    assert "config/config.json" in release.config_paths
    assert release.output["weights"] == "pytorch_lora_weights.safetensors"
    assert SpecifierSet(release.python)
    assert set(release.reasons) == {*release.constraints, *release.overrides}
    assert bool(release.extras) == ("pypi" in release.sources)


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_every_release_has_its_schema(release: Release) -> None:
    assert load_schema(release.version).release == release.version


@pytest.mark.parametrize(
    ("release", "platform"), [(release, platform) for release in releases() for platform in release.locks]
)
def test_lock_pins_and_hashes_everything(release: Release, platform: str) -> None:
    text = resource("third_party", "simpletuner", "locks", release.locks[platform]).read_text()
    requirements = re.findall(r"^([a-z0-9][^\n]*)\n(    --hash)?", text, flags=re.MULTILINE)
    assert len(requirements) > 100
    assert all("==" in line and hashed for line, hashed in requirements)
    assert f"simpletuner=={release.version} \\" in text.replace(f"[{release.extras[platform]}]", "")
    pinned = dict(line.split(" ")[0].split("==", 1) for line, _ in requirements)
    for held in map(Requirement, (*release.constraints, *release.overrides)):
        assert pinned[held.name] in held.specifier
    assert not re.search(r"--index|https?://|file:|/(home|work|tmp)/", text)
