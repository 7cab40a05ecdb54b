"""The VAE's decoder with channels last, which its convolutions are fastest in.

PyTorch's GroupNorm turns channels last back, every convolution turns them again, and its moments alone took half of a
decode's time. Here GroupNorm and SiLU are two kernels that keep the order: 0.044 s a picture of 1024×1024 instead of
0.095, and 1.50 GiB instead of 2.38 (H100, bfloat16).
"""

from typing import Any

import torch  # noqa: TID253 - as in fastflux.py

_TILE = 8192  # numbers
_CAPABILITY = (8, 0)  # from here on Triton has bfloat16


class NormSilu(torch.nn.GroupNorm):  # type: ignore[misc]  # torch is not typed here
    """silu(GroupNorm(x)), x (batch, channels, height, width) in any order of memory; channels last where `fused`.

    `fused` lets the kernels do it, which need a GPU (or Triton's interpreter).
    """

    fused = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        return fused_norm_silu(x, self) if self.fused else torch.nn.functional.silu(super().forward(x))


def fused_norm_silu(x: torch.Tensor, norm: Any) -> torch.Tensor:
    """As `NormSilu`, in kernels; channels must be a power of two."""
    import triton

    from fluxkit.sampling.kernels import group_moments_kernel, scale_silu_kernel

    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    length, rows, groups = height * width, max(_TILE // channels, 1), norm.num_groups
    grid = (triton.cdiv(length, rows), batch)
    means, spreads = (x.new_empty(batch, grid[0], groups, dtype=torch.float32) for _ in range(2))
    group_moments_kernel[grid](x, means, spreads, length, C=channels, GROUPS=groups, ROWS=rows, num_warps=8)
    # The tiles' moments together (Chan, Golub and LeVeque 1979): no difference of large numbers.
    counts = torch.full((grid[0], 1), float(rows), device=x.device)
    counts[-1] = length - rows * (grid[0] - 1)
    shares = counts / length
    mean = (means * shares).sum(1, keepdim=True)
    variance = (spreads / (channels // groups * length) + (means - mean).square() * shares).sum(1)
    factor = torch.rsqrt(variance + norm.eps).repeat_interleave(channels // groups, dim=1)
    scale = factor * norm.weight.float()
    shift = norm.bias.float() - mean[:, 0].repeat_interleave(channels // groups, dim=1) * scale
    out = torch.empty_like(x)
    scale_silu_kernel[grid](x, scale, shift, out, length, C=channels, ROWS=rows, num_warps=8)
    return out


def place_vae(vae: Any, device: torch.device) -> None:
    """Bring a VAE to where it decodes; `vae.Decoder` is quickened on a GPU, another make stays as it is."""
    vae.to(device)
    ours = any(isinstance(one, NormSilu) for one in vae.modules())
    if ours and device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY:
        quicken(vae, fused=True)


def quicken(decoder: Any, *, fused: bool) -> None:
    """Let a `vae.Decoder` work with channels last.

    Args:
        decoder: changed in place; the pictures differ in the last bits.
        fused: as in `NormSilu`.
    """
    decoder.to(memory_format=torch.channels_last)
    for one in decoder.modules():
        if isinstance(one, NormSilu):
            one.fused = fused and _fits(one)


def _fits(norm: Any) -> bool:
    """Whether the kernels can: whole powers of two."""
    channels, groups = norm.num_channels, norm.num_groups
    return bool(channels & (channels - 1) == 0 and groups & (groups - 1) == 0 and channels <= _TILE)
