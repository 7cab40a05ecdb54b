"""Names of files, whatever they are."""

from pathlib import Path

import pytest

from fluxkit.dataset.scan import scan, without_suffix


@pytest.mark.parametrize(
    ("name", "bare"), [("a.png", "a"), ("a.b.png", "a.b"), ("..png", "."), ("...png", ".."), (".png.png", ".png")]
)
def test_any_name_can_be_had_without_its_suffix(tmp_path: Path, name: str, bare: str) -> None:
    (tmp_path / name).touch()
    (found,) = scan(tmp_path).images
    assert without_suffix(found) == f"{tmp_path}/{bare}"
