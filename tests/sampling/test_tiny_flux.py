import json
import shutil
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.files import sha256_file
from fluxkit.sampling.tiny_flux import make_tiny_flux

WEIGHTS = ("transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


def test_has_the_layout_and_the_settings_of_flux_dev(tiny_flux: Path) -> None:
    index = json.loads((tiny_flux / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
    assert json.loads((tiny_flux / "transformer" / "config.json").read_text())["guidance_embeds"] is True
    scheduler = json.loads((tiny_flux / "scheduler" / "scheduler_config.json").read_text())
    assert (scheduler["use_dynamic_shifting"], scheduler["base_shift"], scheduler["max_shift"]) == (True, 0.5, 1.15)


def test_same_seed_same_weights_other_seed_other_weights(tiny_flux: Path, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = make_tiny_flux(tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random state was changed"
    other = make_tiny_flux(tmp_path / "other", seed=1)
    for weights in WEIGHTS:
        assert sha256_file(again / weights) == sha256_file(tiny_flux / weights)
        assert sha256_file(other / weights) != sha256_file(tiny_flux / weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


def test_transformers_4_and_5_read_the_same_clip_vocabulary(tmp_path: Path, tiny_flux: Path) -> None:
    old = shutil.copytree(tiny_flux, tmp_path / "old")
    for name in ("vocab.json", "merges.txt"):
        (old / "tokenizer" / name).unlink()  # as fluxkit 0.1.0 made it
    make_tiny_flux(old)
    for folder in (tiny_flux, old):
        vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text())
        assert vocabulary == json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"]
        assert (folder / "tokenizer" / "merges.txt").read_text().splitlines() == ["#version: 0.2"]


def test_a_model_that_is_there_is_reused(tiny_flux: Path) -> None:
    stamp = (tiny_flux / WEIGHTS[0]).stat().st_mtime_ns
    assert make_tiny_flux(tiny_flux) == tiny_flux
    assert (tiny_flux / WEIGHTS[0]).stat().st_mtime_ns == stamp


def test_something_else_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="in the way"):
        make_tiny_flux(tmp_path)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"
