"""FLUX's VAE, the half that makes pictures: the sums and the names of the weights are diffusers' own (tested).

Importing diffusers for it took longer than the first picture. A VAE of another make goes to diffusers' class.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch  # noqa: TID253 - as in fastflux.py

from fluxkit.files import read_json
from fluxkit.sampling.fast_vae import NormSilu

_PLAIN: dict[str, Any] = {
    "_class_name": "AutoencoderKL", "act_fn": "silu", "mid_block_add_attention": True, "use_post_quant_conv": False,
    "latents_mean": None, "latents_std": None,
}  # fmt: skip
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_EPS = 1e-6


class _Residual(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.norm1 = NormSilu(groups, inputs, eps=_EPS)
        self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = NormSilu(groups, outputs, eps=_EPS)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = torch.nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + changed


class _Attention(torch.nn.Module):  # type: ignore[misc]
    """Of one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = torch.nn.GroupNorm(groups, width, eps=_EPS)
        self.to_q, self.to_k, self.to_v = (torch.nn.Linear(width, width) for _ in range(3))
        self.to_out = torch.nn.ModuleList([torch.nn.Linear(width, width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.group_norm(x.flatten(2)).transpose(1, 2)
        query, key, value = (layer(rows)[:, None] for layer in (self.to_q, self.to_k, self.to_v))
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)[:, 0]
        return self.to_out[0](attended).transpose(1, 2).reshape(x.shape) + x


class _Upsample(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Up(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int, layers: int, groups: int, *, larger: bool) -> None:
        super().__init__()
        self.resnets = torch.nn.ModuleList(
            _Residual(inputs if number == 0 else outputs, outputs, groups) for number in range(layers)
        )
        self.upsamplers = torch.nn.ModuleList([_Upsample(outputs)]) if larger else torch.nn.ModuleList()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class _Middle(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = torch.nn.ModuleList([_Attention(width, groups)])
        self.resnets = torch.nn.ModuleList(_Residual(width, width, groups) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Decoder(torch.nn.Module):  # type: ignore[misc]
    """Latents (1, channels, h/8, w/8) to pixels (1, 3, h, w) between -1 and 1, called as diffusers' AutoencoderKL.

    Args:
        config: the VAE's `config.json`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        widths, groups = list(reversed(config["block_out_channels"])), int(config["norm_num_groups"])
        layers = int(config["layers_per_block"]) + 1
        self.conv_in = torch.nn.Conv2d(int(config["latent_channels"]), widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], groups)
        self.up_blocks = torch.nn.ModuleList(
            _Up(widths[max(number - 1, 0)], width, layers, groups, larger=number < len(widths) - 1)
            for number, width in enumerate(widths)
        )
        self.conv_norm_out = NormSilu(groups, widths[-1], eps=_EPS)
        self.conv_out = torch.nn.Conv2d(widths[-1], int(config["out_channels"]), 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self.conv_in.weight.dtype
        return dtype

    def decode(self, latents: torch.Tensor, *, return_dict: bool = False) -> tuple[torch.Tensor]:
        """Pixels."""
        assert not return_dict  # noqa: S101 - diffusers' signature
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        return (self.conv_out(self.conv_norm_out(x)),)


def load_vae(folder: Path) -> Any:
    """The VAE in bfloat16 on the CPU; of a make that `Decoder` does not know, diffusers' own.

    Raises:
        OSError: or ValueError, where it is damaged.
    """
    from safetensors import safe_open

    config = read_json(folder / "config.json")
    blocks = config.get("up_block_types", ())
    plain = all(config.get(key, value) == value for key, value in _PLAIN.items())
    if not plain or set(blocks) != {"UpDecoderBlock2D"} or not (folder / _WEIGHTS).is_file():
        from diffusers import AutoencoderKL

        return AutoencoderKL.from_pretrained(folder, dtype=torch.bfloat16)
    with torch.device("meta"):
        decoder = Decoder(config)
    with safe_open(folder / _WEIGHTS, framework="pt", device="cpu") as handle:
        # Cloned: safetensors' tensors are 8-byte aligned.
        state = {
            key.removeprefix("decoder."): handle.get_tensor(key).to(torch.bfloat16).clone()
            for key in handle.keys()  # noqa: SIM118 - no mapping
            if key.startswith("decoder.")
        }
    try:
        decoder.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"its VAE does not fit its config.json: {str(error).splitlines()[-1].strip()}") from error
    return decoder.requires_grad_(False).eval()
