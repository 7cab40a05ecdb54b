"""FLUX's blocks with adapters, of random weights, one at a time on the device: what `fidelity.py` runs both ways."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

# Without cuDNN's, whose backward pass failed here on an H200 with torch 2.11 ("mha_graph.execute … is_good()").
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_STD = 0.02  # of the full size's weights, as benchmarks/full_flux.py draws them


@dataclass(frozen=True)
class Size:
    """A FLUX transformer's measures."""

    double: int
    single: int
    heads: int
    head: int
    axes: tuple[int, int, int]
    factors: tuple[int, int]  # of the LoKr in Attention and FeedForward

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.heads * self.head

    @property
    def std(self) -> float:
        """Of the weights: a narrow block adds as much to its input as a wide one, or rounding is all that is seen."""
        return _STD * (3072 / self.width) ** 0.5


SIZES = {
    "full": Size(19, 38, 24, 128, (16, 56, 56), (16, 8)),
    "tiny": Size(2, 2, 4, 16, (4, 6, 6), (4, 2)),
}


class _Adapted(torch.nn.Module):
    """A frozen linear and a LoKr beside it, as LyCORIS's bypass mode computes it."""

    def __init__(self, base: torch.nn.Module, rows: int, columns: int, factor: int) -> None:
        super().__init__()
        self.base = base
        self.first = torch.nn.Parameter(torch.randn(factor, factor) * _STD)
        self.second = torch.nn.Parameter(torch.randn(rows // factor, columns // factor) * _STD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        delta = torch.kron(self.first, self.second).to(x.dtype)
        return self.base(x).to(torch.bfloat16) + torch.nn.functional.linear(x, delta).to(torch.bfloat16)


class _Apart(torch.nn.Module):
    """A block whose outputs share no memory, as in the trainer: one with sdnq's weights isn't compiled otherwise."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, **inputs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(state.clone() for state in self.block(**inputs))


class Network:
    """The blocks, made one at a time from their seeds; two networks of one size differ in their precision alone."""

    def __init__(
        self,
        size: Size,
        device: str,
        quantize: Callable[[torch.nn.Module], None] | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self.size = size
        self.device = device
        self.quantize = quantize
        self.compiled = compiled

    def __len__(self) -> int:
        return self.size.double + self.size.single

    def block(self, index: int) -> torch.nn.Module:
        """The block with its adapters; the same values each time."""
        size = self.size
        kind = FluxTransformerBlock if index < size.double else FluxSingleTransformerBlock
        torch.manual_seed(1000 + index)
        with torch.device(self.device):
            block = kind(dim=size.width, num_attention_heads=size.heads, attention_head_dim=size.head)
            for parameter in block.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=size.std)
        block = block.to(torch.bfloat16).requires_grad_(False)
        linears = {name: module for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
        shapes = {
            name: (module.out_features, module.in_features)
            for name, module in linears.items()
            if name.startswith(("attn.", "ff"))
        }
        if self.quantize:
            self.quantize(block)
            block.requires_grad_(False)
        torch.manual_seed(2000 + index)
        with torch.device(self.device):
            for name, (rows, columns) in shapes.items():
                factor = size.factors[not name.startswith("attn.")]
                block.set_submodule(name, _Adapted(block.get_submodule(name), rows, columns, factor))
        if self.compiled:
            block = _Apart(block)
            block.compile()  # as the shim `regional_compile` does, for every block of the trainer's model
        return block


@dataclass
class Inputs:
    """What enters: the picture's and the text's tokens, the conditioning, the positions, the gradient at the end."""

    picture: torch.Tensor
    text: torch.Tensor
    condition: torch.Tensor
    positions: Any
    gradient: tuple[torch.Tensor, torch.Tensor]


def make_inputs(size: Size, device: str, edge: int, text: int) -> Inputs:
    """Random inputs of a square picture's size, the same for every precision."""
    torch.manual_seed(7)
    side = edge // 16

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(torch.bfloat16)

    ids = torch.zeros(text + side * side, 3, device=device)
    ids[text:, 1] = torch.arange(side, device=device).repeat_interleave(side)
    ids[text:, 2] = torch.arange(side, device=device).repeat(side)
    picture, caption = (1, side * side, size.width), (1, text, size.width)
    return Inputs(
        draw(*picture),
        draw(*caption),
        draw(1, size.width),
        FluxPosEmbed(theta=10000, axes_dim=list(size.axes))(ids),
        (draw(*caption), draw(*picture)),
    )


def forward(network: Network, inputs: Inputs) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The text and the picture before each block, and after the last."""
    states = [(inputs.text, inputs.picture)]
    with torch.no_grad():
        for index in range(len(network)):
            states.append(run_block(network, network.block(index), states[-1], inputs))
    return states


def backward(
    network: Network, inputs: Inputs, states: list[tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[torch.Tensor]:
    """The adapters' gradients, block by block from the last, for the inputs' gradient at the end."""
    gradient = inputs.gradient
    for index in reversed(range(len(network))):
        block = network.block(index)
        before = tuple(state.detach().requires_grad_() for state in states[index])
        after = run_block(network, block, before, inputs)
        torch.autograd.backward(after, gradient)
        gradient = tuple(state.grad if state.grad is not None else torch.zeros_like(state) for state in before)
        yield torch.cat(
            [p.grad.flatten().float() for p in block.parameters() if p.requires_grad and p.grad is not None]
        )


def run_block(
    network: Network, block: torch.nn.Module, state: Any, inputs: Inputs
) -> tuple[torch.Tensor, torch.Tensor]:
    """The text and the picture after a block."""
    with sdpa_kernel(_ATTENTION), torch.autocast(network.device, dtype=torch.bfloat16):
        text, picture = block(
            hidden_states=state[1],
            encoder_hidden_states=state[0],
            temb=inputs.condition,
            image_rotary_emb=inputs.positions,
        )
    return text.to(torch.bfloat16), picture.to(torch.bfloat16)
