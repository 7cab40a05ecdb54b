"""Prompts to embeddings, each once: what was encoded in an earlier run is read from disk, and T5 never loaded.

T5 and CLIP are 9.5 GB to read and to hold; an encoded prompt is 4 MB.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluxkit.sampling.quiet import quiet_libraries
from fluxkit.sampling.tensor_cache import component_facts, library_versions, sampling_cache

if TYPE_CHECKING:
    import torch

ENCODER_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class Embedding:
    """An encoded prompt, on the CPU: T5's (1, tokens, width) and CLIP's pooled (1, width), in bfloat16."""

    prompt: "torch.Tensor"
    pooled: "torch.Tensor"


class PromptEncoder:
    """Encodes for one base model.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
        max_sequence_length: T5 tokens.
        device: where the encoders run, if they fit.
    """

    def __init__(self, base: str, revision: str | None, max_sequence_length: int, device: "torch.device") -> None:
        self._base, self._revision, self._length, self._device = base, revision, max_sequence_length, device
        self._cache = sampling_cache("prompts")
        self.loaded = False

    def encode(self, prompts: Sequence[str]) -> dict[str, Embedding]:
        """Every prompt's embedding; the encoders are loaded for what is not known, and freed.

        Raises:
            OSError: or what else the libraries raise where the base model is damaged.
        """
        found: dict[str, Embedding] = {}
        parts = self._parts()
        for prompt in dict.fromkeys(prompts):
            kept = self._cache.load({**parts, "prompt": prompt}) if parts else None
            if kept is not None and kept[0].keys() == {"prompt", "pooled"}:
                found[prompt] = Embedding(kept[0]["prompt"], kept[0]["pooled"])
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        if missing:
            found.update(self._encode(missing))
            parts = parts or self._parts()  # downloaded by now
            for prompt in missing if parts else ():
                tensors = {"prompt": found[prompt].prompt, "pooled": found[prompt].pooled}
                self._cache.store({**parts, "prompt": prompt}, tensors)
        return found

    def _parts(self) -> dict[str, Any]:
        """What an embedding depends on besides its text; empty while the base is not on this machine."""
        files = {part: component_facts(self._base, self._revision, part) for part in ENCODER_PARTS[:2]}
        if None in files.values():
            return {}
        return {
            "files": files,
            "length": self._length,
            "device": self._device.type,
            "libraries": library_versions("torch", "transformers", "diffusers"),
        }

    def _encode(self, prompts: Sequence[str]) -> dict[str, Embedding]:
        import torch

        quiet_libraries()  # before they are imported any further
        from diffusers import FluxPipeline

        self.loaded = True
        pipe: Any = FluxPipeline.from_pretrained(
            self._base, revision=self._revision, transformer=None, vae=None, dtype=torch.bfloat16
        )
        found = _encode_on(self._device, pipe, prompts, self._length)
        if found is None:
            # Text encoders that don't fit the GPU are slow on the CPU, but right.
            gc.collect()
            torch.cuda.empty_cache()
            found = _encode_on(torch.device("cpu"), pipe, prompts, self._length)
        if found is None:
            raise MemoryError("the text encoders fit neither the GPU nor the RAM")
        del pipe
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return found


def _encode_on(device: "torch.device", pipe: Any, prompts: Sequence[str], length: int) -> "dict[str, Embedding] | None":
    """None when it didn't fit."""
    import torch

    found = {}
    try:
        for encoder in (pipe.text_encoder, pipe.text_encoder_2):
            encoder.to(device)
        with torch.no_grad():
            for prompt in prompts:
                embeds, pooled, _ = pipe.encode_prompt(
                    prompt=prompt, prompt_2=prompt, device=device, max_sequence_length=length
                )
                found[prompt] = Embedding(embeds.cpu(), pooled.cpu())
    except torch.OutOfMemoryError:
        return None
    return found
