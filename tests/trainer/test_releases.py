import re

import pytest

from fluxkit.errors import UserError
from fluxkit.resources import resource
from fluxkit.trainer.releases import Release, find_release, releases
from fluxkit.trainer.schema import load_schema


def test_known_releases_newest_first() -> None:
    assert [release.version for release in releases()] == ["4.8.0", "1.2.5"]


@pytest.mark.parametrize("spelling", ["4.8.0", "v4.8.0", " 4.8.0 "])
def test_find_release_takes_usual_spellings(spelling: str) -> None:
    release = find_release(spelling)
    assert (release.version, release.launcher, release.rehearsal) == ("4.8.0", "cli", True)


@pytest.mark.parametrize(
    ("wanted", "named"), [("4.9.0", "4.8.0"), ("1.3.0", "1.2.5"), ("0.9", "1.2.5"), ("x4.8.0", "4.8.0")]
)
def test_unknown_release_names_the_nearest(wanted: str, named: str) -> None:
    with pytest.raises(UserError) as error:
        find_release(wanted)
    assert named in error.value.message
    assert "4.8.0, 1.2.5" in error.value.fix


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
    for pin in release.constraints:
        assert re.search(rf"^{re.escape(pin)}\b", text, flags=re.MULTILINE)
    assert not re.search(r"--index|https?://|file:|/(home|work|tmp)/", text)
