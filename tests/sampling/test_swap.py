"""Adapters beside the weights: equal to merging, gone without a trace, on a quantized base too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxkit.errors import UserError
from fluxkit.sampling.adapters import merge_adapters
from fluxkit.sampling.plan import AdapterWeight
from fluxkit.sampling.quantizers import quantizer
from fluxkit.sampling.swap import AdapterSwap

TARGET = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def peft_file(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    path = tmp_path / "peft.safetensors"
    save_file(
        {
            f"transformer.{TARGET}.lora_A.weight": torch.randn(4, 64, generator=generator),
            f"transformer.{TARGET}.lora_B.weight": torch.randn(64, 4, generator=generator),
        },
        path,
    )
    return path


def network_file(tiny_flux: Path, helpers: Any, path: Path, **options: Any) -> Path:
    network = helpers.lokr_network(helpers.load_transformer(tiny_flux), **options)
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, path)
    return path


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


@pytest.mark.parametrize("algo", ["lokr", "loha", "lora"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)], ids=["fp32", "bf16"])
def test_the_wrapper_equals_the_merge(
    tiny_flux: Path, tmp_path: Path, helpers: Any, algo: str, dtype: torch.dtype, close: float
) -> None:
    stack = (AdapterWeight(network_file(tiny_flux, helpers, tmp_path / "a.safetensors", algo=algo)),)
    model, merged = (helpers.load_transformer(tiny_flux).to(dtype) for _ in range(2))
    plain = helpers.forward(model, dtype)
    assert AdapterSwap(model).apply(stack, 8.0) == merge_adapters(merged, stack, 8.0) == 30
    wrapped = helpers.forward(model, dtype)
    assert wrapped.dtype == dtype
    assert relative(wrapped, helpers.forward(merged, dtype)) < close < relative(wrapped, plain) / 3


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_taken_off_the_base_is_what_it_was(
    tiny_flux: Path, helpers: Any, lokr_file: Path, peft_file: Path, quantize: Any
) -> None:
    model = helpers.load_transformer(tiny_flux).to(torch.bfloat16)
    quantizer(quantize).place(model, torch.device("cpu"))
    before = helpers.forward(model, torch.bfloat16)
    names = [name for name, _ in model.named_modules()]
    swap = AdapterSwap(model)
    swap.apply((AdapterWeight(lokr_file),), 1.0)
    adapted = helpers.forward(model, torch.bfloat16)
    swap.strengthen(0.0)
    assert torch.equal(helpers.forward(model, torch.bfloat16), before), "strength 0 is the base"
    assert swap.apply((AdapterWeight(lokr_file), AdapterWeight(peft_file, 0.5)), 1.0) == 31
    assert not torch.equal(helpers.forward(model, torch.bfloat16), adapted)
    assert swap.apply((), 1.0) == 0
    assert torch.equal(helpers.forward(model, torch.bfloat16), before)
    assert [name for name, _ in model.named_modules()] == names
    swap.apply((AdapterWeight(lokr_file),), 1.0)
    assert torch.equal(helpers.forward(model, torch.bfloat16), adapted), "a swap there and back changes nothing"


def test_two_adapters_stack(tiny_flux: Path, helpers: Any, lokr_file: Path, peft_file: Path) -> None:
    stack = (AdapterWeight(lokr_file, 0.5), AdapterWeight(peft_file, 0.25))
    model, merged = (helpers.load_transformer(tiny_flux) for _ in range(2))
    AdapterSwap(model).apply(stack, 2.0)
    merge_adapters(merged, stack, 2.0)
    assert relative(helpers.forward(model), helpers.forward(merged)) < 1e-5


def test_another_checkpoint_reuses_the_wrappers(tiny_flux: Path, tmp_path: Path, helpers: Any) -> None:
    """New modules would make compiled code compile again, once a block."""
    first, second = (
        network_file(tiny_flux, helpers, tmp_path / f"{seed}.safetensors", seed=seed, full_matrix=True)
        for seed in (1, 2)
    )
    model, merged = (helpers.load_transformer(tiny_flux) for _ in range(2))
    swap = AdapterSwap(model)
    swap.apply((AdapterWeight(first),), 1.0)
    before = dict(model.named_modules())
    swap.apply((AdapterWeight(second),), 0.5)
    assert dict(model.named_modules()) == before
    merge_adapters(merged, (AdapterWeight(second),), 0.5)
    assert relative(helpers.forward(model), helpers.forward(merged)) < 1e-5


def test_a_stranger_leaves_what_was_on(tiny_flux: Path, tmp_path: Path, helpers: Any, lokr_file: Path) -> None:
    model = helpers.load_transformer(tiny_flux)
    swap = AdapterSwap(model)
    swap.apply((AdapterWeight(lokr_file),), 1.0)
    before = helpers.forward(model)
    renamed = {key.replace("lycoris_", "lycoris_unet_"): value for key, value in load_file(lokr_file).items()}
    save_file(renamed, tmp_path / "stranger.safetensors")
    with pytest.raises(UserError, match="30 modules expected, 0 matched"):
        swap.apply((AdapterWeight(tmp_path / "stranger.safetensors"),), 1.0)
    assert torch.equal(helpers.forward(model), before)
