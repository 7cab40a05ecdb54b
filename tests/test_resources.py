import pytest

from fluxkit.resources import FOLDERS, resource


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_data_folder_is_found(folder: str) -> None:
    assert resource(folder).is_dir()


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="is none of"):
        resource("secrets")
