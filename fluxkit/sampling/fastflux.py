"""FLUX's transformer rearranged for sampling; the same sums as diffusers' in fewer and larger steps.

What differs: q, k and v (in single blocks the feed-forward's first half too) are one matrix product; text and image
stay joined through the single blocks; the adaLN layers, 3.25 of 11.9 billion weights, are looked up in a table
(`tables.py`), as their output depends on prompt, step and guidance alone; each input of a product is quantized once.
With plain operations in bfloat16 the result equals diffusers' (tested).
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch  # noqa: TID253 - torch modules; whoever imports this has torch loaded already

from fluxkit.sampling.blocks import DoubleBlock, SingleBlock, Source, scale_and_shift
from fluxkit.sampling.first_block import FirstBlockCache
from fluxkit.sampling.frame import FluxConfig, frame_parts, rotary_angles
from fluxkit.sampling.ops import PlainOps, WeightKind
from fluxkit.sampling.step_graph import StepGraph
from fluxkit.sampling.streaming import BlockStreamer

# What belongs to no block.
FRAME = ("time_text_embed", "context_embedder", "x_embedder", "proj_out")


@dataclass(frozen=True)
class StepRows:
    """The adaLN layers' outputs for every step of a batch.

    Args:
        names: of the norms they belong to, in the order in which they lie.
        widths: outputs of each.
        values: (steps, batch, all outputs) in bfloat16.
    """

    names: tuple[str, ...]
    widths: tuple[int, ...]
    values: torch.Tensor

    def of(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step's values (batch, all outputs) by the norm's name, (batch, outputs) each."""
        return dict(zip(self.names, values.split(self.widths, dim=1), strict=True))


class FastFlux(torch.nn.Module):  # type: ignore[misc]
    """The transformer, in the place of diffusers' in its pipeline.

    Args:
        config: the transformer's `config.json`.
        source: a weight by its name in diffusers, in bfloat16, on the device where it is to stay.
        kind: what the blocks' weights are held in; the rest, 2% of the weights, stays in bfloat16.
        ops: what lies between the products; of the kind that the products are made in (nf4's in bfloat16).
        home: where each part goes once it is made; None leaves it where the source had its weights.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        source: Source,
        kind: WeightKind,
        ops: PlainOps,
        home: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.ops, self.kind = ops, kind
        self.config = FluxConfig(config)
        heads = int(self.config["num_attention_heads"])
        for name, part in frame_parts(self.config).items():
            state = {key: source(f"{name}.{key}") for key in part.state_dict()}
            part.load_state_dict(state, assign=True)
            setattr(self, name, part if home is None else part.to(home))
        doubles, singles = int(self.config["num_layers"]), int(self.config["num_single_layers"])
        self.doubles, self.singles = torch.nn.ModuleList(), torch.nn.ModuleList()
        for index in range(doubles):
            block = DoubleBlock(source, f"transformer_blocks.{index}.", heads, kind)
            self.doubles.append(block if home is None else block.to(home))
        for index in range(singles):
            single = SingleBlock(source, f"single_transformer_blocks.{index}.", heads, kind)
            self.singles.append(single if home is None else single.to(home))
        self.requires_grad_(False).eval()
        self._rows: StepRows | None = None
        self._step = 0
        self.graph: StepGraph | None = None
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None
        self.streamer: BlockStreamer | None = None
        self.first_block_cache: FirstBlockCache | None = None

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
        for name in FRAME:
            getattr(self, name).to(device)
        # What is streamed goes last: where memory runs out before, the blocks are whole and may be placed otherwise.
        for number, block in enumerate(self.blocks):
            if streamer is not None and number >= first:
                streamer.take(number, block)
            else:
                block.to(device)
        self.streamer = streamer

    def stream_more(self, streamed: int) -> None:
        """Stream this many blocks instead of fewer."""
        self.graph = None  # and its memory
        self.streamer = self.streamer or BlockStreamer(self.device)
        for number in range(len(self.blocks) - streamed, len(self.blocks)):
            if number not in self.streamer:
                self.streamer.take(number, self.blocks[number])

    @contextmanager
    def cache_context(self, _name: str) -> Iterator[None]:
        """What diffusers' pipeline enters for each step."""
        yield

    def begin(self, rows: StepRows) -> None:
        """Start a batch with the adaLN layers' outputs for each of its steps."""
        self._rows, self._step = rows, 0
        if self.first_block_cache is not None:
            self.first_block_cache.begin()

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
        assert self._rows is not None  # noqa: S101 - for the type checker
        rows, values = self._rows, self._rows.values[self._step]
        self._step += 1
        inputs = (hidden_states, encoder_hidden_states, values, *self._angles(txt_ids, img_ids))

        def work(hidden: torch.Tensor, text: torch.Tensor, values: torch.Tensor, *rotary: torch.Tensor) -> torch.Tensor:
            return self._velocity(hidden, text, rows.of(values), (rotary[0], rotary[1]))

        # With the first-block cache no step is like the one before.
        if self.graph is not None and self.streamer is None and self.first_block_cache is None:
            return (self.graph(work, *inputs),)
        result = work(*inputs)
        if self.first_block_cache is not None and self._step == len(rows.values):
            self.first_block_cache.finish()
        return (result,)

    def _velocity(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """One step's work, all of it on the device."""
        image, text = self.x_embedder(hidden_states), self.context_embedder(encoder_hidden_states)
        cache = self.first_block_cache
        if cache is None:
            image = self._rest(image, text, rows, rotary, first=0)
        else:
            added = -image  # a copy in any case: fused operations work in place
            image, text = self._doubles(image, text, rows, rotary, 0, 1)
            added += image
            image = cache.through(added, image, text, rows, partial(self._rest, rotary=rotary, first=1))
        scale, shift = rows["norm_out"].chunk(2, dim=1)
        plain = torch.nn.functional.layer_norm(image, image.shape[-1:], eps=1e-6)
        result: torch.Tensor = self.proj_out(plain * (1 + scale)[:, None, :] + shift[:, None, :])
        return result

    def _doubles(
        self,
        image: torch.Tensor,
        text: torch.Tensor,
        rows: Mapping[str, torch.Tensor],
        rotary: Any,
        first: int,
        stop: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and text after the double blocks from `first` until `stop`."""
        names = [f"transformer_blocks.{index}." for index in range(first, stop)]
        modulations = [(rows[f"{name}norm1"], rows[f"{name}norm1_context"]) for name in names]
        streams = zip((image, text), modulations[0], strict=True)
        normed = tuple(self.ops.norm_modulate(x, *scale_and_shift(modulation)) for x, modulation in streams)
        # The last block's normalized results are not needed; another form of block would have to be compiled by itself.
        for index, (modulation, following) in enumerate(pairwise([*modulations, modulations[-1]]), start=first):
            with self._lent(index):
                image, text, normed = self.doubles[index](image, text, normed, modulation, following, rotary, self.ops)
        return image, text

    def _rest(
        self, image: torch.Tensor, text: torch.Tensor, rows: Mapping[str, torch.Tensor], rotary: Any, first: int
    ) -> torch.Tensor:
        """The image's tokens after the double blocks from `first` on and all single blocks."""
        if first < len(self.doubles):
            image, text = self._doubles(image, text, rows, rotary, first, len(self.doubles))
        joined = torch.cat([text, image], dim=1)
        singles = [rows[f"single_transformer_blocks.{index}.norm"] for index in range(len(self.singles))]
        shift, scale, _ = singles[0].chunk(3, dim=1)
        normed = self.ops.norm_modulate(joined, scale, shift)
        for index, (block, modulation) in enumerate(zip(self.singles, pairwise([*singles, singles[-1]]), strict=True)):
            with self._lent(len(self.doubles) + index):
                joined, normed = block(joined, normed, modulation, rotary, self.ops)
        return joined[:, text.shape[1] :]

    def _lent(self, number: int) -> AbstractContextManager[None]:
        return self.streamer.lend(number) if self.streamer is not None else nullcontext()

    def _angles(self, txt_ids: torch.Tensor, img_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary embeddings, made once a batch."""
        if self._step == 1 or self._rotary is None:
            axes = tuple(self.config["axes_dims_rope"])
            self._rotary = rotary_angles(torch.cat((txt_ids, img_ids), dim=0), axes)
        return self._rotary


def adaln_names(config: Mapping[str, Any]) -> list[str]:
    """The adaLN layers by the name of the norm they belong to; their linear is `<name>.linear`."""
    names = []
    for index in range(int(config["num_layers"])):
        names += [f"transformer_blocks.{index}.norm1", f"transformer_blocks.{index}.norm1_context"]
    names += [f"single_transformer_blocks.{index}.norm" for index in range(int(config["num_single_layers"]))]
    return [*names, "norm_out"]
