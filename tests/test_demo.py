"""The whole chain as a user starts it: the real SimpleTuner, installed from its lock, in the user's own cache."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.real import fluxkit


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("demo")
    return root, fluxkit("demo", "--keep", root).strip().splitlines()


@pytest.mark.slow
def test_the_demo_prints_a_line_a_stage_and_the_gallery_last(demo: tuple[Path, list[str]]) -> None:
    _, lines = demo
    stages = [line for line in lines if re.fullmatch(r"\d\. .+: [\d.]+ s", line)]
    assert len(stages) == 7
    assert Path(lines[-1]).name == "index.html"
    assert Path(lines[-1]).is_file()


@pytest.mark.slow
def test_the_demo_trained_for_real(demo: tuple[Path, list[str]]) -> None:
    root, _ = demo
    (record_file,) = root.glob("runs/*/run.json")
    record = json.loads(record_file.read_text())
    assert record["status"] == "finished"
    assert record["rehearsal"] is True
    # 2 double blocks with 12 linears each, 2 single blocks with 3: the same rule gives 342 for FLUX.1-dev.
    assert record["modules"] == 30
    assert record["seconds_per_step"] > 0
    assert (record_file.parent / "output" / "checkpoint-4").is_dir()
    assert "step_loss" in (record_file.parent / "logs" / "trainer.log").read_text()


@pytest.mark.slow
def test_the_demo_made_four_different_images(demo: tuple[Path, list[str]]) -> None:
    root, _ = demo
    images = sorted(root.glob("samples/*/**/*.png"))
    assert len(images) == 4
    assert len({path.read_bytes() for path in images}) == 4
    for path in images:
        with Image.open(path) as image:
            assert image.size == (64, 64)
            assert "fxkdemo" in image.info["parameters"]
