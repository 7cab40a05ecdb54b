"""What other programs read in the images: checked with AUTOMATIC1111's own rules."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.sampling.plan import AdapterContent, Identity, Job
from fluxkit.sampling.writer import read_parameters, without_metadata, write_image

JOB = Job("portrait", "ohwx man", 7, 64, 48, 20, 3.0, 0.8, "final")
IDENTITY = Identity("/models/flux, the: big", None, (AdapterContent("ab" * 32),), "int8")
PROMPTS = [
    "ohwx man",
    'ohwx "quoted", a: b, (weight:1.2) <lora:x:1>',
    "ohwx\nover two lines\nSteps: 99, Seed: 1",
    "ohwx 😀 é 日本語",
]
# The rule of AUTOMATIC1111's stable-diffusion-webui 1.10, modules/infotext_utils.py.
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def parse(text: str) -> tuple[str, dict[str, str]]:
    """The prompt and the settings, as its `parse_generation_parameters` finds them."""
    *lines, last = text.strip().split("\n")
    if len(PARAMETER.findall(last)) < 3:
        lines.append(last)
        last = ""
    found = {}
    for key, value in PARAMETER.findall(last):
        found[key] = json.loads(value) if value[:1] == '"' and value[-1:] == '"' else value
    return "\n".join(lines), found


@pytest.mark.parametrize("ending", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_settings_are_read_back(tmp_path: Path, ending: str, prompt: str) -> None:
    path = tmp_path / f"a.{ending}"
    image = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    write_image(path, image, dataclasses.replace(JOB, prompt=prompt), IDENTITY)
    text = read_parameters(path)
    assert text is not None
    found_prompt, settings = parse(text)
    assert found_prompt == prompt
    assert settings["Seed"] == "7"
    assert settings["Size"] == "64x48"
    assert settings["Steps"] == "20"
    assert settings["Distilled CFG Scale"] == "3.0"
    assert settings["Model"] == "flux, the: big"
    with Image.open(path) as opened:
        assert opened.format == ending.upper()
        exif = opened.getexif()
        if ending == "png":
            assert not exif
            assert set(opened.text) == {"parameters", "fluxkit"}  # type: ignore[attr-defined]
        else:
            assert set(exif) == {0x8769}
            assert set(exif.get_ifd(0x8769)) == {0x9286}, "UserComment and nothing else"


@pytest.mark.parametrize("ending", ["png", "webp", "jpeg"])
def test_without_metadata_there_is_none_and_the_pixels_are_the_same(tmp_path: Path, ending: str) -> None:
    image = Image.radial_gradient("L").resize((64, 48)).convert("RGB")
    said, bare, stripped = (tmp_path / f"{name}.{ending}" for name in ("said", "bare", "stripped"))
    write_image(said, image, JOB, IDENTITY)
    write_image(bare, image, JOB, IDENTITY, metadata=False)
    stripped.write_bytes(without_metadata(said))
    pixels = set()
    for path in (said, bare, stripped):
        with Image.open(path) as opened:
            opened.load()
            pixels.add(opened.tobytes())
            if path != said:
                assert not opened.getexif()
                assert not getattr(opened, "text", {})
        if path != said:
            assert b"ohwx" not in path.read_bytes()
            assert "ohwx".encode("utf-16-be") not in path.read_bytes()
    assert len(pixels) == 1
