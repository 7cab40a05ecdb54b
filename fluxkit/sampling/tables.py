"""The adaLN layers' outputs as tables: they depend on prompt, step and guidance alone.

3.25 of FLUX.1-dev's 11.9 billion weights are multiplied with one vector a step. Made once for a prompt, their results
take 42 MB at 20 steps, and the weights need not stay in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - as in fastflux.py

from fluxkit.sampling.blocks import Source
from fluxkit.sampling.fastflux import FastFlux, StepRows, adaln_names
from fluxkit.sampling.schedule import sigmas


@dataclass(frozen=True)
class Condition:
    """What a picture's modulation depends on.

    Args:
        prompt: the text, to tell prompts apart.
        width: of the picture, in pixels; with the height it shifts the steps.
        height: of the picture, in pixels.
        num_inference_steps: denoising steps.
        guidance_scale: distilled guidance.
    """

    prompt: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float


def timesteps(scheduler: Any, condition: Condition, device: torch.device) -> torch.Tensor:
    """The steps that diffusers' FluxPipeline takes for a picture of this size, (steps,) in float32."""
    shares = sigmas(scheduler.config, condition.width, condition.height, condition.num_inference_steps)
    return torch.from_numpy(shares[:-1]).to(device) * 1000


def make_tables(
    model: FastFlux, source: Source, scheduler: Any, wanted: Mapping[Condition, torch.Tensor]
) -> dict[Condition, dict[str, torch.Tensor]]:
    """Tables for each condition, on the CPU: by norm, (steps, outputs) in bfloat16.

    Every condition is computed by itself, so that a picture does not depend on what else is made. One layer is held
    at a time.

    Args:
        model: for its embedding of time, guidance and prompt.
        source: the adaLN layers' weights by name.
        scheduler: the pipeline's.
        wanted: pooled prompt embeddings (1, width) by condition.
    """
    embedded = {}
    device = model.device
    with torch.no_grad():
        for condition, pooled in wanted.items():
            steps = timesteps(scheduler, condition, device)
            rows = [_embed(model, step, condition, pooled.to(device)) for step in steps]
            embedded[condition] = torch.nn.functional.silu(torch.cat(rows))
        tables: dict[Condition, dict[str, torch.Tensor]] = {condition: {} for condition in wanted}
        for name in adaln_names(model.config):
            weight, bias = source(f"{name}.linear.weight"), source(f"{name}.linear.bias")
            for condition, vectors in embedded.items():
                tables[condition][name] = torch.nn.functional.linear(vectors, weight, bias).cpu()
    return tables


def _embed(model: FastFlux, step: torch.Tensor, condition: Condition, pooled: torch.Tensor) -> torch.Tensor:
    """(1, width), with diffusers' roundings: the step goes through bfloat16, divided and multiplied by 1,000."""
    timestep = (step.expand(1).to(torch.bfloat16) / 1000).to(torch.bfloat16) * 1000
    if not model.config.guidance_embeds:
        return model.time_text_embed(timestep, pooled)
    guidance = torch.full([1], condition.guidance_scale, device=pooled.device, dtype=torch.float32)
    return model.time_text_embed(timestep, guidance.to(torch.bfloat16) * 1000, pooled)


class DeviceTables:
    """The tables of the conditions in work, on the device: another seed of the same prompt moves nothing.

    Args:
        device: where the model works.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: dict[Condition, tuple[tuple[str, ...], torch.Tensor]] = {}

    def rows(self, tables: Mapping[Condition, Mapping[str, torch.Tensor]], batch: list[Condition]) -> StepRows:
        """The rows of a batch's pictures; only its conditions are kept."""
        kept = {one: self._kept.get(one) or self._placed(tables[one]) for one in batch}
        self._kept = kept
        names = kept[batch[0]][0]
        widths = tuple(tables[batch[0]][name].shape[1] for name in names)
        stacked = [kept[one][1] for one in batch]
        values = stacked[0].unsqueeze(1) if len(batch) == 1 else torch.stack(stacked, dim=1)
        return StepRows(names, widths, values)

    def _placed(self, table: Mapping[str, torch.Tensor]) -> tuple[tuple[str, ...], torch.Tensor]:
        """One copy to the device for all the norms; 500 small ones took 20 ms."""
        names = tuple(sorted(table))
        return names, torch.cat([table[name] for name in names], dim=1).to(self._device)
