from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.releases import find_release
from fluxkit.trainer.sources.path import lock_from_path

pytestmark = pytest.mark.usefixtures("quickly_resolved")
FLAT, PACKAGED = "1.4.0", "4.7.0"


def lock(folder: Path, version: str, said: list[str]) -> Lock:
    return lock_from_path(find_release(version), "cpu", folder, said.append)


@pytest.mark.parametrize("version", [FLAT, PACKAGED])
def test_a_plain_folder_is_used_in_place_and_said_to_be_unpinned(tmp_path: Path, write_release, version: str) -> None:
    write_release(tmp_path, version)
    said: list[str] = []
    made = lock(tmp_path, version, said)
    assert made.source == Source("path", path=tmp_path)
    assert made.source.folder == tmp_path
    assert any("not pinned" in line for line in said)
    # The flat releases never say which they are.
    assert any("does not say which SimpleTuner" in line for line in said) == (version == FLAT)


def test_a_folder_of_another_version_is_refused(tmp_path: Path, write_release) -> None:
    write_release(tmp_path, "4.6.9")
    with pytest.raises(UserError, match=r"is SimpleTuner 4\.6\.9, not 4\.7\.0") as error:
        lock(tmp_path, PACKAGED, [])
    assert 'version = "4.6.9"' in error.value.fix


def test_a_work_tree_at_another_tag_is_refused(upstream) -> None:
    upstream.release("1.3.9")
    with pytest.raises(UserError, match=r"is at v1\.3\.9, not at v1\.4\.0") as error:
        lock(upstream.folder, FLAT, [])
    assert error.value.fix


def test_a_work_tree_at_the_tag_is_taken_as_of_its_commits_day(upstream) -> None:
    upstream.release(FLAT)
    said: list[str] = []
    made = lock(upstream.folder, FLAT, said)
    assert made.as_of.startswith("20")
    assert not any("does not say" in line for line in said)


def test_a_repository_around_the_folder_says_nothing_about_it(upstream, write_release) -> None:
    upstream.release("1.3.9")
    inside = upstream.folder / "vendor" / "SimpleTuner"
    write_release(inside, FLAT)
    assert lock(inside, FLAT, []).source.path == inside
