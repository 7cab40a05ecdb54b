import sys
from pathlib import Path

import pytest

from benchmarks import borrow_environment
from benchmarks.borrow_environment import borrow, place_of
from fluxkit.commands.assemble import whole_environment
from fluxkit.process import run
from fluxkit.project.load import load_project
from tests.projects import start_project


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


def test_a_borrowed_trainer_is_taken_for_the_installed_one(tmp_path: Path) -> None:
    package(tmp_path / "stack", "simpletuner", "simpletuner", "from the stack")
    package(tmp_path / "stack", "accelerate", "accelerate", "")
    digest = place_of("4.8.0")[1]
    argv = [sys.executable, borrow_environment.__file__, "--installed", "4.8.0", "--site", tmp_path / "stack"]
    assert run(argv).returncode == 0
    root = tmp_path / "project"
    start_project(root)
    found = whole_environment(load_project(root))
    assert found.digest == digest
    assert run([found.root / "bin" / "simpletuner"]).stdout.strip() == "from the stack"


def test_it_goes_to_one_place(tmp_path: Path) -> None:
    argv = [sys.executable, borrow_environment.__file__, tmp_path / "env", "--installed", "4.8.0", "--site", tmp_path]
    assert "name DIR or --installed" in run(argv).stderr
