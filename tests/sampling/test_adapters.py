"""Merging equals the wrapper that the adapter was trained with; anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxkit.errors import UserError
from fluxkit.sampling.adapters import merge_adapter

TARGET = "transformer_blocks.0.attn.to_q"


def forward(transformer: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        result = transformer(
            hidden_states=torch.randn(1, 16, 64, generator=generator),
            timestep=torch.tensor([0.5]),
            guidance=torch.tensor([3.0]),
            pooled_projections=torch.randn(1, 32, generator=generator),
            encoder_hidden_states=torch.randn(1, 8, 32, generator=generator),
            txt_ids=torch.zeros(8, 3),
            img_ids=torch.zeros(16, 3),
            return_dict=False,
        )
    return result[0]


@pytest.fixture
def model(tiny_flux: Path, helpers: Any) -> Any:
    return helpers.load_transformer(tiny_flux)


@pytest.mark.parametrize("full_matrix", [True, False], ids=["full_matrix", "low-rank"])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_merged_lokr_equals_the_wrapper(
    tiny_flux: Path, tmp_path: Path, helpers: Any, full_matrix: bool, strength: float
) -> None:
    wrapped = helpers.load_transformer(tiny_flux)
    plain = forward(wrapped)
    network = helpers.lokr_network(wrapped, multiplier=strength, full_matrix=full_matrix)
    path = tmp_path / "adapter.safetensors"
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, path)
    expected = forward(wrapped)
    assert (expected - plain).abs().max() > 1e-3, "the wrapper changes nothing: the test would prove nothing"

    merged = helpers.load_transformer(tiny_flux)
    assert merge_adapter(merged, path, strength) == len(network.loras) == 30
    assert torch.allclose(forward(merged), expected, atol=2e-5)


def peft_tensors(rank: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"transformer.{TARGET}.lora_A.weight": torch.randn(rank, 64, generator=generator),
        f"transformer.{TARGET}.lora_B.weight": torch.randn(64, rank, generator=generator),
    }


def test_a_merged_peft_lora_equals_diffusers_own(tiny_flux: Path, tmp_path: Path, model: Any, helpers: Any) -> None:
    tensors = peft_tensors()
    save_file(tensors, tmp_path / "adapter.safetensors")
    reference = helpers.load_transformer(tiny_flux)
    reference.load_lora_adapter(tensors, prefix="transformer")
    reference.set_adapters(reference.active_adapters(), weights=0.5)
    assert merge_adapter(model, tmp_path / "adapter.safetensors", 0.5) == 1
    assert torch.allclose(forward(model), forward(reference), atol=2e-5)


def test_peft_alpha_counts(tmp_path: Path, model: Any) -> None:
    tensors = peft_tensors(rank=4)
    down, up = tensors.values()
    before = model.get_submodule(TARGET).weight.detach().clone()
    save_file({**tensors, f"transformer.{TARGET}.alpha": torch.tensor(2.0)}, tmp_path / "a.safetensors")
    merge_adapter(model, tmp_path / "a.safetensors", 1.0)
    assert torch.allclose(model.get_submodule(TARGET).weight, before + up @ down * 0.5, atol=1e-5)


def test_a_truncated_file_is_damaged(tmp_path: Path, lokr_file: Path, model: Any) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(lokr_file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        merge_adapter(model, path, 1.0)


def test_a_missing_file_is_named(tmp_path: Path, model: Any) -> None:
    with pytest.raises(UserError, match=r"no adapter .*gone\.safetensors"):
        merge_adapter(model, tmp_path / "gone.safetensors", 1.0)


@pytest.mark.parametrize("strangers", [1, 30], ids=["one module", "all modules"])
def test_modules_of_another_model_are_counted(tmp_path: Path, lokr_file: Path, model: Any, strangers: int) -> None:
    tensors = load_file(lokr_file)
    names = sorted({key.partition(".")[0] for key in tensors})[:strangers]
    renamed = {
        key.replace("lycoris_", "lycoris_unet_") if key.split(".")[0] in names else key: tensors[key] for key in tensors
    }
    save_file(renamed, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=f"30 modules expected, {30 - strangers} matched"):
        merge_adapter(model, tmp_path / "adapter.safetensors", 1.0)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {
                f"transformer.{TARGET}.lora_A.weight": torch.ones(4, 128),
                f"transformer.{TARGET}.lora_B.weight": torch.ones(64, 4),
            },
            "another model",
        ),
        ({f"transformer.{TARGET}.lora_A.weight": torch.ones(4, 64)}, "another model"),
        (
            {
                "lycoris_transformer_blocks_0_attn_to_q.lokr_w1": torch.ones(4, 4),
                "lycoris_transformer_blocks_0_attn_to_q.lokr_w2": torch.ones(48, 48),
            },
            "another model",
        ),
        ({"lycoris_transformer_blocks_0_attn_to_q.hada_w1_a": torch.ones(4, 4)}, "LoHa"),
        ({f"transformer.{TARGET}.lora_magnitude_vector": torch.ones(64)}, "DoRA"),
        ({"model.diffusion_model.weight": torch.ones(4)}, "no LyCORIS or PEFT adapter"),
        (
            {
                f"transformer.{TARGET}.lora_A.weight": torch.full((4, 64), float("nan")),
                f"transformer.{TARGET}.lora_B.weight": torch.ones(64, 4),
            },
            "not finite",
        ),
    ],
    ids=["wrong width", "half a pair", "wrong LoKr size", "LoHa", "DoRA", "a checkpoint", "NaN"],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path, model: Any, tensors: dict[str, torch.Tensor], says: str
) -> None:
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=says):
        merge_adapter(model, tmp_path / "adapter.safetensors", 1.0)


def test_an_empty_file_is_no_adapter(tmp_path: Path, model: Any) -> None:
    save_file({}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError):
        merge_adapter(model, tmp_path / "adapter.safetensors", 1.0)
