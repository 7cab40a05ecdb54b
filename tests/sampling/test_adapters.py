"""Merging equals the wrapper that the adapter was trained with; anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxkit.errors import UserError
from fluxkit.sampling.adapters import merge_adapter, merge_adapters, read_adapter
from fluxkit.sampling.plan import AdapterWeight

TARGET = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def model(tiny_flux: Path, helpers: Any) -> Any:
    return helpers.load_transformer(tiny_flux)


@pytest.mark.parametrize(
    ("algo", "full_matrix"),
    [("lokr", True), ("lokr", False), ("loha", False), ("lora", False)],
    ids=["full_matrix", "low-rank", "LoHa", "LoCon"],
)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_merged_lycoris_equals_its_wrapper(
    tiny_flux: Path, tmp_path: Path, helpers: Any, algo: str, full_matrix: bool, strength: float
) -> None:
    wrapped = helpers.load_transformer(tiny_flux)
    plain = helpers.forward(wrapped)
    network = helpers.lokr_network(wrapped, multiplier=strength, full_matrix=full_matrix, algo=algo)
    path = tmp_path / "adapter.safetensors"
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, path)
    expected = helpers.forward(wrapped)
    assert (expected - plain).abs().max() > 1e-3, "the wrapper changes nothing: the test would prove nothing"

    merged = helpers.load_transformer(tiny_flux)
    assert merge_adapter(merged, path, strength) == len(network.loras) == 30
    assert torch.allclose(helpers.forward(merged), expected, atol=2e-5)


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
    assert torch.allclose(helpers.forward(model), helpers.forward(reference), atol=2e-5)


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
        ({"lycoris_transformer_blocks_0_attn_to_q.dora_scale": torch.ones(4, 4)}, "DoRA"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(4, 64)}, "text encoders"),
        ({f"base_model.model.{TARGET}.lora_A.weight": torch.ones(4, 64)}, "nothing of its scale"),
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
    ids=[
        "wrong width",
        "half a pair",
        "wrong LoKr size",
        "LyCORIS DoRA",
        "text encoder",
        "PEFT without settings",
        "DoRA",
        "a checkpoint",
        "NaN",
    ],
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


@pytest.mark.parametrize("form", ["lokr", "peft"])
def test_an_adapter_that_never_trained_is_refused(tmp_path: Path, lokr_file: Path, model: Any, form: str) -> None:
    tensors = load_file(lokr_file) if form == "lokr" else peft_tensors()
    ending = "lokr_w2" if form == "lokr" else "lora_B.weight"  # what training starts from: zero
    for key in tensors:
        if key.endswith(ending):
            tensors[key] = torch.zeros_like(tensors[key])
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match="changes nothing"):
        merge_adapter(model, tmp_path / "adapter.safetensors", 1.0)


def test_another_models_adapter_is_named_by_its_header(tmp_path: Path, model: Any) -> None:
    metadata = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    save_file(peft_tensors(), tmp_path / "adapter.safetensors", metadata=metadata)
    with pytest.raises(UserError, match="another model: stable-diffusion-xl"):
        merge_adapter(model, tmp_path / "adapter.safetensors", 1.0)


@pytest.mark.parametrize("rslora", [False, True])
def test_pefts_own_form_equals_peft(tiny_flux: Path, tmp_path: Path, model: Any, helpers: Any, rslora: bool) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=3, target_modules=["to_q", "proj_out"], use_rslora=rslora)
    reference = get_peft_model(helpers.load_transformer(tiny_flux), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    reference.save_pretrained(tmp_path)
    merge_adapter(model, tmp_path / "adapter_model.safetensors", 1.0)
    assert torch.allclose(helpers.forward(model), helpers.forward(reference), atol=2e-5)


def kohya_tensors(*, out: int = 64, mlp: int = 256) -> dict[str, torch.Tensor]:
    """One double and one single block as sd-scripts writes them; alpha 2 of rank 4."""
    widths = {
        "double_blocks_0_img_attn_qkv": (3 * out, out),
        "double_blocks_0_txt_attn_proj": (out, out),
        "double_blocks_0_img_mlp_0": (mlp, out),
        "double_blocks_0_txt_mlp_2": (out, mlp),
        "double_blocks_0_img_mod_lin": (6 * out, out),
        "single_blocks_0_linear1": (3 * out + mlp, out),
        "single_blocks_0_linear2": (out, out + mlp),
        "single_blocks_0_modulation_lin": (3 * out, out),
    }
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for name, (rows, columns) in widths.items():
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator) * 0.1
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator) * 0.1
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.mark.slow
def test_kohyas_names_mean_what_diffusers_says_they_mean(tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    tensors = kohya_tensors(out=3072, mlp=12288)  # diffusers' converter knows no other width
    save_file(tensors, tmp_path / "adapter.safetensors")
    reference = FluxPipeline.lora_state_dict(dict(tensors))
    expected = {
        key.removeprefix("transformer.").removesuffix(".lora_A.weight"): reference[key.replace("lora_A", "lora_B")]
        @ down
        for key, down in reference.items()
        if key.endswith("lora_A.weight")
    }
    assert len(expected) == 13
    shapes = {name: (change.shape[0], change.shape[1]) for name, change in expected.items()}
    found = read_adapter(tmp_path / "adapter.safetensors", shapes)
    assert found.keys() == expected.keys()
    for name, (delta,) in found.items():
        assert torch.allclose(delta.whole() * delta.scale, expected[name], atol=1e-5), name


def test_comfyuis_names_are_kohyas_with_dots(tmp_path: Path, model: Any, tiny_flux: Path, helpers: Any) -> None:
    kohya = {key: value for key, value in kohya_tensors().items() if "qkv" in key or "linear1" in key}
    comfy = {
        key.replace("lora_unet_double_blocks_0_img_attn_qkv", "diffusion_model.double_blocks.0.img_attn.qkv")
        .replace("lora_unet_single_blocks_0_linear1", "diffusion_model.single_blocks.0.linear1")
        .replace("lora_up", "lora_B")
        .replace("lora_down", "lora_A"): value
        for key, value in kohya.items()
    }
    save_file(kohya, tmp_path / "kohya.safetensors")
    save_file(comfy, tmp_path / "comfy.safetensors")
    other = helpers.load_transformer(tiny_flux)
    assert merge_adapter(model, tmp_path / "kohya.safetensors", 1.0) == 7
    assert merge_adapter(other, tmp_path / "comfy.safetensors", 1.0) == 7
    assert torch.equal(helpers.forward(model), helpers.forward(other))


def test_two_adapters_are_one_sum(tmp_path: Path, lokr_file: Path, model: Any, tiny_flux: Path, helpers: Any) -> None:
    save_file(peft_tensors(), tmp_path / "peft.safetensors")
    stack = (AdapterWeight(lokr_file, 0.5), AdapterWeight(tmp_path / "peft.safetensors", 0.25))
    assert merge_adapters(model, stack, 2.0) == 31
    one_by_one = helpers.load_transformer(tiny_flux)
    merge_adapter(one_by_one, lokr_file, 1.0)
    merge_adapter(one_by_one, tmp_path / "peft.safetensors", 0.5)
    assert torch.allclose(helpers.forward(model), helpers.forward(one_by_one), atol=2e-5)
