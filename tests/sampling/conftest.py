"""One tiny FLUX for all tests of sampling: it takes seconds to make."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random FLUX in diffusers format; read only."""
    from fluxkit.sampling.tiny_flux import make_tiny_flux

    return make_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's cache, for tests that are not about the cache: the text encoders are loaded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def _use_shared_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fluxkit keep what it caches in `shared_cache`."""
    monkeypatch.setenv("FLUXKIT_CACHE", str(shared_cache))


def load_transformer(base: Path) -> Any:
    """The tiny model's transformer in float32: merges compare to 1e-6 there."""
    import torch
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(base, subfolder="transformer", dtype=torch.float32).eval()


def lokr_network(
    transformer: Any, *, multiplier: float = 1.0, full_matrix: bool = False, algo: str = "lokr", seed: int = 3
) -> Any:
    """LyCORIS's own wrapper around every attention and feed-forward layer, with random weights."""
    import torch
    from lycoris import LycorisNetwork, create_lycoris

    LycorisNetwork.apply_preset({"target_module": ["FluxAttention", "FeedForward"], "enable_conv": False})
    generator = torch.Generator().manual_seed(seed)
    kind: dict[str, Any] = {"factor": 4, "full_matrix": full_matrix} if algo == "lokr" else {}
    network = create_lycoris(transformer, multiplier, linear_dim=2, linear_alpha=1, algo=algo, **kind)
    network.apply_to()  # until then the network has no parameters of its own
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return network


@pytest.fixture(scope="session")
def lokr_file(tiny_flux: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoKr adapter of the tiny model."""
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("adapters") / "pytorch_lora_weights.safetensors"
    network = lokr_network(load_transformer(tiny_flux), full_matrix=True)
    save_file({key: value.to(torch.bfloat16).contiguous() for key, value in network.state_dict().items()}, path)
    return path


def forward(transformer: Any, dtype: Any = None) -> Any:
    """What the tiny transformer predicts for one fixed input."""
    import torch

    generator = torch.Generator().manual_seed(0)
    dtype = dtype or torch.float32
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, 16, 64, generator=generator).to(dtype),
            timestep=torch.tensor([0.5], dtype=dtype),
            guidance=torch.tensor([3.0], dtype=dtype),
            pooled_projections=torch.randn(1, 32, generator=generator).to(dtype),
            encoder_hidden_states=torch.randn(1, 8, 32, generator=generator).to(dtype),
            txt_ids=torch.zeros(8, 3),
            img_ids=torch.zeros(16, 3),
            return_dict=False,
        )[0]


@pytest.fixture(scope="session")
def helpers() -> Any:
    """`load_transformer`, `lokr_network` and `forward`; test modules can't import a conftest in importlib mode."""
    return SimpleNamespace(load_transformer=load_transformer, lokr_network=lokr_network, forward=forward)
