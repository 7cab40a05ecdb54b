from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer.lock import Source
from fluxkit.trainer.pin import Pin, resolve


def test_a_mirror_of_the_index_is_where_the_shipped_locks_packages_come_from(tmp_path: Path) -> None:
    lock = resolve(Pin("4.8.0", "cpu", mirror="https://mirror.example/simple"), tmp_path / "fluxkit.lock")
    assert lock.source == Source("pypi", "https://mirror.example/simple")
    assert lock.digest == resolve(Pin("4.8.0", "cpu"), tmp_path / "fluxkit.lock").digest


def test_a_repository_is_no_mirror_of_the_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no address of a package index") as error:
        resolve(Pin("4.8.0", "cpu", mirror="/mirrors/SimpleTuner.git"), tmp_path / "fluxkit.lock")
    assert 'source = "git"' in error.value.fix


def test_a_release_that_only_the_repository_has_can_not_come_from_the_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='can\'t come from source = "pypi"'):
        resolve(Pin("2.1.3", "cpu"), tmp_path / "fluxkit.lock")
