"""What of FLUX's transformer belongs to no block: the embedders, and the shapes of all its weights.

The sums and the names of the weights are diffusers' own (a test holds both); importing diffusers for them took longer
than reading the weights.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch  # noqa: TID253 - as in fastflux.py

# What the files of FLUX.1's first releases leave out.
_DEFAULTS: dict[str, Any] = {
    "patch_size": 1, "in_channels": 64, "out_channels": None, "num_layers": 19, "num_single_layers": 38,
    "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
    "guidance_embeds": False, "axes_dims_rope": (16, 56, 56),
}  # fmt: skip
_TIME_CHANNELS = 256
_THETA = 10_000


class FluxConfig(dict[str, Any]):
    """The transformer's settings, by key or by attribute; what a file leaves out has FLUX.1's value."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__({**_DEFAULTS, **given})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def width(self) -> int:
        """Of a token."""
        return int(self["num_attention_heads"]) * int(self["attention_head_dim"])


class Embedder(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Two linear layers with SiLU between: (rows, inputs) → (rows, width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = torch.nn.Linear(inputs, width), torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both layers."""
        out: torch.Tensor = self.linear_2(torch.nn.functional.silu(self.linear_1(x)))
        return out


class TimeTextEmbedder(torch.nn.Module):  # type: ignore[misc]
    """Time, guidance where the model takes it, and CLIP's pooled prompt as one vector."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.timestep_embedder = Embedder(_TIME_CHANNELS, config.width)
        if config["guidance_embeds"]:
            self.guidance_embedder = Embedder(_TIME_CHANNELS, config.width)
        self.text_embedder = Embedder(int(config["pooled_projection_dim"]), config.width)

    def forward(self, timestep: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        """(rows, width), from time (rows,), guidance (rows,) and pooled prompt (rows, inputs) as one."""
        pooled = given[-1]
        embedded = self.timestep_embedder(waves(timestep).to(pooled.dtype))
        if len(given) == 2:
            embedded = embedded + self.guidance_embedder(waves(given[0]).to(pooled.dtype))
        out: torch.Tensor = embedded + self.text_embedder(pooled)
        return out


def waves(numbers: torch.Tensor) -> torch.Tensor:
    """Cosines and sines of numbers (rows,), as Ho et al. (arXiv:2006.11239) embed a step: (rows, 256) in float32."""
    half = _TIME_CHANNELS // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=numbers.device) / half
    angles = numbers[:, None].float() * torch.exp(exponent)[None, :]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


def rotary_angles(ids: torch.Tensor, axes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of rotary embeddings (arXiv:2104.09864), (tokens, head width) each in float32, values twice.

    Args:
        ids: the tokens' places, (tokens, axes).
        axes: how much of the head's width each axis takes.
    """
    parts = []
    for axis, width in enumerate(axes):
        even = torch.arange(0, width, 2, dtype=torch.float64, device=ids.device)
        parts.append(torch.outer(ids[:, axis].float(), 1.0 / (_THETA ** (even / width))))
    angles = torch.cat(parts, dim=-1)
    cos, sin = (
        one.repeat_interleave(2, dim=1, output_size=2 * angles.shape[1]) for one in (angles.cos(), angles.sin())
    )
    return cos.float(), sin.float()


def frame_parts(config: FluxConfig) -> dict[str, torch.nn.Module]:
    """The embedders and the last layer by their names in diffusers, without memory (on `meta`)."""
    with torch.device("meta"):
        return {
            "time_text_embed": TimeTextEmbedder(config),
            "context_embedder": torch.nn.Linear(int(config["joint_attention_dim"]), config.width),
            "x_embedder": torch.nn.Linear(int(config["in_channels"]), config.width),
            "proj_out": torch.nn.Linear(config.width, _outputs(config)),
        }


def empty_source(config: FluxConfig) -> Callable[[str], torch.Tensor]:
    """A source for `FastFlux` of weights that take no memory (on `meta`): it gives a model of the right shapes."""
    width, head = config.width, int(config["attention_head_dim"])
    shapes = {
        f"{name}.{key}": one.shape
        for name, part in frame_parts(config).items()
        for key, one in part.state_dict().items()
    }
    wide = {"ff.net.0.proj": (4, 1), "ff_context.net.0.proj": (4, 1), "proj_mlp": (4, 1),
            "ff.net.2": (1, 4), "ff_context.net.2": (1, 4), "proj_out": (1, 5)}  # fmt: skip

    def source(name: str) -> torch.Tensor:
        shape: Any = shapes.get(name)
        if shape is None:
            layer, _, kind = name.partition("blocks.")[2].partition(".")[2].rpartition(".")
            rows, columns = wide.get(layer, (1, 1))
            shape = (rows * width, columns * width) if kind == "weight" else (rows * width,)
            if ".norm_" in f".{layer}":
                shape = (head,)
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")

    return source


def _outputs(config: FluxConfig) -> int:
    return int(config["patch_size"]) ** 2 * int(config["out_channels"] or config["in_channels"])
