from pathlib import Path

import pytest

from fluxkit.project.edit import edit_file

TEXT = """\
# Mine.
[simpletuner]    # the trainer
version = '4.8.0' # stays as it is written
source = "pypi"
mirror = "https://old.example"

[sample]
width = 1024
"""


def test_only_the_named_settings_change(tmp_path: Path) -> None:
    file = tmp_path / "fluxkit.toml"
    file.write_text(TEXT)
    assert edit_file(file, "simpletuner", {"source": "git", "mirror": None, "path": None})
    assert file.read_text() == TEXT.replace('"pypi"', '"git"').replace('mirror = "https://old.example"\n', "")


def test_what_is_there_already_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "fluxkit.toml"
    file.write_text(TEXT)
    stamp = file.stat().st_mtime_ns
    assert not edit_file(file, "simpletuner", {"source": "pypi", "path": None})
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("text", ["", "[project]\nname = 'it'\n"])
def test_a_section_that_is_missing_is_added(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fluxkit.toml"
    file.write_text(text)
    assert edit_file(file, "simpletuner", {"source": "git"})
    assert file.read_text().startswith(text)
    assert '[simpletuner]\nsource = "git"\n' in file.read_text()
