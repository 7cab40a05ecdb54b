import sys
from pathlib import Path

import pytest

from benchmarks.borrow_environment import borrow
from fluxkit.process import run


def package(site: Path, name: str, program: str, says: str) -> None:
    site.mkdir(exist_ok=True)
    (site / f"{name}_module.py").write_text(f"def main():\n    print({says!r})\n")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{program} = {name}_module:main\n")


def test_the_programs_run_from_folders_elsewhere_and_the_first_folder_wins(tmp_path: Path) -> None:
    package(tmp_path / "stack", "simpletuner", "simpletuner", "from the stack")
    package(tmp_path / "image", "accelerate", "accelerate", "from the image")
    (tmp_path / "stack" / "both.py").write_text("where = 'stack'")
    (tmp_path / "image" / "both.py").write_text("where = 'image'")
    made = borrow(tmp_path / "env", [tmp_path / "stack", tmp_path / "image"])
    assert [run([path]).stdout.strip() for path in made] == ["from the stack", "from the image"]
    python = tmp_path / "env" / "bin" / "python"
    assert run([python, "-c", "import both; print(both.where)"], env={}).stdout.strip() == "stack"
    assert run([python, "-c", "import sys; print(sys.version_info[:2])"]).stdout.strip() == str(sys.version_info[:2])


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    package(tmp_path / "stack", "simpletuner", "simpletuner", "x")
    with pytest.raises(SystemExit, match="accelerate is in none of"):
        borrow(tmp_path / "env", [tmp_path / "stack"])
