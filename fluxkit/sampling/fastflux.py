"""FLUX's transformer rearranged for sampling; the same sums as diffusers' in fewer and larger steps.

What differs: q, k and v (in single blocks the feed-forward's first half too) are one matrix product; text and image
stay joined through the single blocks; the adaLN layers, 3.25 of 11.9 billion weights, are looked up in a table
(`tables.py`), as their output depends on prompt, step and guidance alone; each input of a product is quantized once.
With plain operations in bfloat16 the result equals diffusers' (tested).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch  # noqa: TID253 - torch modules; whoever imports this has torch loaded already

from fluxkit.sampling.linears import RowLinear
from fluxkit.sampling.ops import Kind, PlainOps
from fluxkit.sampling.streaming import BlockStreamer

Source = Callable[[str], torch.Tensor]
# What belongs to no block.
FRAME = ("time_text_embed", "context_embedder", "x_embedder", "proj_out")


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(batch, heads, tokens, head width) each → (batch, tokens, heads · head width)."""
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return out.transpose(1, 2).flatten(2, 3)


class _Parts:
    """Reads a block's weights from a source and makes its layers."""

    def __init__(self, source: Source, prefix: str, kind: Kind) -> None:
        self.source, self.prefix, self.kind = source, prefix, kind

    def linear(self, *names: str) -> RowLinear:
        """One layer of several that take the same input, in that order."""
        weights = [self.source(f"{self.prefix}{name}.weight") for name in names]
        biases = [self.source(f"{self.prefix}{name}.bias") for name in names]
        return RowLinear(torch.cat(weights) if len(names) > 1 else weights[0], torch.cat(biases), self.kind)

    def norm(self, name: str) -> torch.nn.RMSNorm:
        weight = self.source(f"{self.prefix}{name}.weight")
        with torch.device("meta"):
            norm = torch.nn.RMSNorm(weight.shape[0], eps=1e-6)
        norm.weight = torch.nn.Parameter(weight, requires_grad=False)
        return norm


class DoubleBlock(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Text and image with weights of their own, joined in attention."""

    def __init__(self, source: Source, prefix: str, heads: int, kind: Kind) -> None:
        super().__init__()
        parts = _Parts(source, prefix, kind)
        self.heads = heads
        self.qkv = parts.linear("attn.to_q", "attn.to_k", "attn.to_v")
        self.out = parts.linear("attn.to_out.0")
        self.up, self.down = parts.linear("ff.net.0.proj"), parts.linear("ff.net.2")
        self.norm_q, self.norm_k = parts.norm("attn.norm_q"), parts.norm("attn.norm_k")
        self.text_qkv = parts.linear("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
        self.text_out = parts.linear("attn.to_add_out")
        self.text_up, self.text_down = parts.linear("ff_context.net.0.proj"), parts.linear("ff_context.net.2")
        self.text_norm_q, self.text_norm_k = parts.norm("attn.norm_added_q"), parts.norm("attn.norm_added_k")

    def forward(
        self,
        image: torch.Tensor,
        text: torch.Tensor,
        modulation: tuple[torch.Tensor, torch.Tensor],
        rotary: tuple[torch.Tensor, torch.Tensor],
        ops: PlainOps,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and text, each (batch, tokens, width), with the rows of the tables for both (batch, 6 · width)."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation[0].chunk(6, dim=1)
        text_shift, text_scale, text_gate, text_ff_shift, text_ff_scale, text_ff_gate = modulation[1].chunk(6, dim=1)
        joined = ops.queries(
            [
                (self.text_qkv(ops.norm_modulate(text, text_scale, text_shift)), self.text_norm_q, self.text_norm_k),
                (self.qkv(ops.norm_modulate(image, scale, shift)), self.norm_q, self.norm_k),
            ],
            self.heads,
            rotary,
        )
        attended = attention(*joined)
        tokens = text.shape[1]
        image = ops.add_gated(image, gate, self.out(ops.rows(attended[:, tokens:])))
        text = ops.add_gated(text, text_gate, self.text_out(ops.rows(attended[:, :tokens])))
        up = self.up(ops.norm_modulate(image, ff_scale, ff_shift))
        image = ops.add_gated(image, ff_gate, self.down(ops.activate(up)))
        up = self.text_up(ops.norm_modulate(text, text_ff_scale, text_ff_shift))
        text = ops.add_gated(text, text_ff_gate, self.text_down(ops.activate(up)))
        return image, text


class SingleBlock(torch.nn.Module):  # type: ignore[misc]
    """Text and image joined; attention and feed-forward side by side."""

    def __init__(self, source: Source, prefix: str, heads: int, kind: Kind) -> None:
        super().__init__()
        parts = _Parts(source, prefix, kind)
        self.heads = heads
        self.qkv_up = parts.linear("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
        self.out = parts.linear("proj_out")
        self.norm_q, self.norm_k = parts.norm("attn.norm_q"), parts.norm("attn.norm_k")

    def forward(
        self,
        joined: torch.Tensor,
        modulation: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        ops: PlainOps,
    ) -> torch.Tensor:
        """(batch, tokens, width), with the table's row (batch, 3 · width)."""
        shift, scale, gate = modulation.chunk(3, dim=1)
        width = joined.shape[2]
        qkv, up = self.qkv_up(ops.norm_modulate(joined, scale, shift)).split([3 * width, 4 * width], dim=2)
        attended = attention(*ops.queries([(qkv, self.norm_q, self.norm_k)], self.heads, rotary))
        return ops.add_gated(joined, gate, self.out(ops.activate(up, attended)))


class FastFlux(torch.nn.Module):  # type: ignore[misc]
    """The transformer, in the place of diffusers' in its pipeline.

    Args:
        config: the transformer's `config.json`.
        source: a weight by its name in diffusers, in bfloat16, on the device where it is to stay.
        kind: what the blocks' products are made in; the rest, 2% of the weights, stays in bfloat16.
        ops: what lies between the products; of the same kind.
        home: where each part goes once it is made; None leaves it where the source had its weights.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        source: Source,
        kind: Kind,
        ops: PlainOps,
        home: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        from diffusers import FluxTransformer2DModel
        from diffusers.configuration_utils import FrozenDict

        self.ops, self.kind = ops, kind
        heads = int(config["num_attention_heads"])
        with torch.device("meta"):
            # The blocks are made below; diffusers' class brings the embedders, sized by the same config.
            frame = FluxTransformer2DModel.from_config({**config, "num_layers": 0, "num_single_layers": 0})
        self.config = FrozenDict({**frame.config, **{key: config[key] for key in ("num_layers", "num_single_layers")}})
        for name in FRAME:
            part = getattr(frame, name)
            state = {key: source(f"{name}.{key}") for key in part.state_dict()}
            part.load_state_dict(state, assign=True)
            setattr(self, name, part if home is None else part.to(home))
        self.pos_embed, self.norm = frame.pos_embed, frame.norm_out.norm
        doubles, singles = int(config["num_layers"]), int(config["num_single_layers"])
        self.doubles, self.singles = torch.nn.ModuleList(), torch.nn.ModuleList()
        for index in range(doubles):
            block = DoubleBlock(source, f"transformer_blocks.{index}.", heads, kind)
            self.doubles.append(block if home is None else block.to(home))
        for index in range(singles):
            single = SingleBlock(source, f"single_transformer_blocks.{index}.", heads, kind)
            self.singles.append(single if home is None else single.to(home))
        self.requires_grad_(False).eval()
        self._rows: list[dict[str, torch.Tensor]] = []
        self._step = 0
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None
        self.streamer: BlockStreamer | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the latents."""
        return torch.bfloat16

    @property
    def device(self) -> torch.device:
        """Where the latents go."""
        device: torch.device = self.x_embedder.weight.device
        return device

    @property
    def blocks(self) -> list[torch.nn.Module]:
        """All blocks in the order in which they work."""
        return [*self.doubles, *self.singles]

    def settle(self, device: torch.device, streamed: int) -> None:
        """Put everything on the device but the last `streamed` blocks, which are streamed from the host's memory.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        streamer = BlockStreamer(device) if streamed else None
        first = len(self.blocks) - streamed
        for number, block in enumerate(self.blocks):
            if streamer is not None and number >= first:
                streamer.take(number, block)
            else:
                block.to(device)
        for name in FRAME:
            getattr(self, name).to(device)
        self.streamer = streamer

    def stream_more(self, streamed: int) -> None:
        """Stream this many blocks instead of fewer."""
        self.streamer = self.streamer or BlockStreamer(self.device)
        for number in range(len(self.blocks) - streamed, len(self.blocks)):
            if number not in self.streamer:
                self.streamer.take(number, self.blocks[number])

    @contextmanager
    def cache_context(self, _name: str) -> Iterator[None]:
        """What diffusers' pipeline enters for each step."""
        yield

    def begin(self, rows: list[dict[str, torch.Tensor]]) -> None:
        """Start a batch.

        Args:
            rows: for each step, the adaLN layers' outputs by the layer's name, (batch, outputs) each.
        """
        self._rows, self._step = rows, 0

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        txt_ids: torch.Tensor,
        img_ids: torch.Tensor,
        **_given: Any,
    ) -> tuple[torch.Tensor]:
        """The next step's velocity: (batch, tokens, 64) → the same.

        Time, guidance and the pooled prompt are in the tables already.
        """
        rows = self._rows[self._step]
        self._step += 1
        rotary = self._angles(txt_ids, img_ids)
        image, text = self.x_embedder(hidden_states), self.context_embedder(encoder_hidden_states)
        for index, block in enumerate(self.doubles):
            name = f"transformer_blocks.{index}."
            modulation = (rows[f"{name}norm1"], rows[f"{name}norm1_context"])
            with self._lent(index):
                image, text = block(image, text, modulation, rotary, self.ops)
        joined = torch.cat([text, image], dim=1)
        for index, block in enumerate(self.singles):
            with self._lent(len(self.doubles) + index):
                joined = block(joined, rows[f"single_transformer_blocks.{index}.norm"], rotary, self.ops)
        image = joined[:, text.shape[1] :]
        scale, shift = rows["norm_out"].chunk(2, dim=1)
        return (self.proj_out(self.norm(image) * (1 + scale)[:, None, :] + shift[:, None, :]),)

    def _lent(self, number: int) -> AbstractContextManager[None]:
        return self.streamer.lend(number) if self.streamer is not None else nullcontext()

    def _angles(self, txt_ids: torch.Tensor, img_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary embeddings, made once a batch."""
        if self._step == 1 or self._rotary is None:
            cos, sin = self.pos_embed(torch.cat((txt_ids, img_ids), dim=0))
            self._rotary = (cos.contiguous(), sin.contiguous())
        return self._rotary


def adaln_names(config: Mapping[str, Any]) -> list[str]:
    """The adaLN layers by the name of the norm they belong to; their linear is `<name>.linear`."""
    names = []
    for index in range(int(config["num_layers"])):
        names += [f"transformer_blocks.{index}.norm1", f"transformer_blocks.{index}.norm1_context"]
    names += [f"single_transformer_blocks.{index}.norm" for index in range(int(config["num_single_layers"]))]
    return [*names, "norm_out"]
