import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=root, check=True)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_carries_every_data_file_and_nothing_else(wheel: Path, project_root: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "profiles", "third_party"):
        for file in (project_root / folder).rglob("*"):
            if file.is_file() and file.name != ".gitkeep":
                assert f"fluxkit/_data/{file.relative_to(project_root)}" in names
    assert {name.split("/")[0] for name in names} == {"fluxkit", "fluxkit-0.1.0.dist-info"}


def test_the_installed_wheel_finds_its_own_data(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
    subprocess.run([*command, "--target", site, wheel], check=True)
    code = (
        "from fluxkit.resources import FOLDERS, resource\n"
        "for folder in FOLDERS:\n"
        "    path = resource(folder); print(path); assert any(p.is_file() for p in path.rglob('*')), path"
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(site)) for line in done.stdout.splitlines())
    done = subprocess.run(
        [sys.executable, "-m", "fluxkit", "--version"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "0.1.0" in done.stdout
