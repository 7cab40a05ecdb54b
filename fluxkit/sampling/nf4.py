"""`nf4`: weights in 4 bits (QLoRA, arXiv:2305.14314, section 3), for cards that hold nothing larger.

bitsandbytes packs and unpacks; this is the only module of sampling that names it. Its own `Linear4bit` is not used: it
returns its input's dtype, and guesses the dtype of its product from the first input that it sees.
"""

import logging

import torch  # noqa: TID253 - a torch module's class; whoever imports this has torch loaded already

from fluxkit.sampling.ops import Rows

# Weights that share one float32 scale: 4.5 bits a weight in all. Packed scales would save 0.37 bits and lose precision.
BLOCK = 64


class Nf4Linear(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """A linear layer that unpacks its weight, multiplies in bfloat16, and forgets the unpacked weight again."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Quantize a weight.

        Args:
            weight: (out, in) in bfloat16, on the device where it stays; on `meta`, only shapes are made.
            bias: (out,) in bfloat16.
        """
        super().__init__()
        _register()
        self.shape = tuple(weight.shape)
        if weight.is_meta:
            count = weight.numel()
            packed = torch.empty((count + 1) // 2, dtype=torch.uint8, device="meta")
            scales = torch.empty(-(-count // BLOCK), dtype=torch.float32, device="meta")
        else:
            packed, scales = torch.ops.bitsandbytes.quantize_4bit(weight.contiguous(), BLOCK, "nf4", torch.uint8)
        self.register_buffer("weight", packed.flatten())
        self.register_buffer("scale", scales)
        self.register_buffer("bias", bias)

    @property
    def unpacked_bytes(self) -> int:
        """What the weight takes while it is multiplied with."""
        return 2 * int(self.shape[0]) * int(self.shape[1])

    def unpacked(self) -> torch.Tensor:
        """The weight, (out, in) in bfloat16."""
        weight: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            self.weight[:, None], self.scale, BLOCK, "nf4", self.shape, torch.bfloat16
        )
        return weight

    def forward(self, rows: Rows) -> torch.Tensor:
        """(batch, tokens, in) in bfloat16 → (batch, tokens, out) in bfloat16."""
        return torch.nn.functional.linear(rows.values, self.unpacked(), self.bias)


def packed_bytes(weights: int) -> int:
    """What so many weights take, their scales included."""
    return (weights + 1) // 2 + 4 * -(-weights // BLOCK)


def _register() -> None:
    """Have bitsandbytes register its operations with torch: `torch.compile` keeps calls of such as they are."""
    # On a CPU it advises to install a kernel that is not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes  # noqa: F401 - it registers them when it is imported
