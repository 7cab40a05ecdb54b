"""From jobs to pictures: prompts encoded once, the adapter merged, the transformer quantized, jobs in batches.

A picture depends on its job alone: its noise comes from its own CPU generator, and the VAE decodes one picture at a
time (a batched bfloat16 decode changed a quarter of the pixels by up to 5/255).
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.sampling.bases import base_model, explain_damage
from fluxkit.sampling.decoding import decode, picture, too_large
from fluxkit.sampling.fast_loader import FastLoader
from fluxkit.sampling.fast_sampler import FastSampler
from fluxkit.sampling.gpu import free_memory
from fluxkit.sampling.plan import AdapterWeight, Identity, Job
from fluxkit.sampling.prompt_encoder import Embedding, PromptEncoder
from fluxkit.sampling.proof import check_effect, prove
from fluxkit.sampling.quantizers import Plain, Quantizer, RowQuantizer, quantizer
from fluxkit.sampling.stock import merged_transformer, place_weights, stock_batch_size, stock_pipeline
from fluxkit.sampling.swap import AdapterSwap

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class FluxSampler:
    """FLUX.1 on this machine's GPU, or on its CPU."""

    def __init__(
        self,
        base: str | Path,
        revision: str | None,
        quantizer: Quantizer | RowQuantizer,
        *,
        wrapped: bool = False,
        first_block_cache: float | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        """Load all but the transformer and the text encoders.

        Args:
            base: Hub id or local folder in diffusers format.
            revision: the Hub revision.
            quantizer: what the transformer goes through after merging.
            wrapped: adapters are put beside the quantized weights and swapped there, instead of merged.
            first_block_cache: threshold of the first-block cache; None leaves it off.
            on_notice: told how the model is held, and what changes when memory runs out; stderr by default.

        Raises:
            UserError: the base model is missing or damaged.
        """
        # Without it the allocator's pieces don't fit together: decoding at 11.0 GiB failed with it off (H100).
        if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name
            os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if isinstance(quantizer, Plain) and not wrapped and (self.device.type == "cuda" or first_block_cache):
            quantizer = RowQuantizer("bf16")  # the same sums, faster
        self._first_block_cache = first_block_cache
        self._base, self._revision, self._quantizer = str(base), revision, quantizer
        self._wrapped = wrapped
        self._notice = on_notice or _to_stderr
        self._request: tuple[Sequence[AdapterWeight], float] = ((), 0.0)
        self._fast: FastSampler | None = None
        self._swap: AdapterSwap | None = None
        self._model = base_model(base, revision)
        self._encoder = PromptEncoder(self._base, revision, self._model.max_sequence_length, self.device)
        self._embeddings: dict[str, Embedding] = {}
        self._pipe: Any = self._light() if isinstance(quantizer, RowQuantizer) else stock_pipeline(self._base, revision)

    def _light(self) -> Any:
        from fluxkit.sampling.light import LightPipeline

        with explain_damage(self._base):
            return LightPipeline(self._base, self._revision)

    def _place_vae(self) -> None:
        from fluxkit.sampling.fast_vae import place_vae

        place_vae(self._pipe.vae, self.device)

    def encode(self, prompts: Iterable[str]) -> None:
        """Encode each prompt once; the text encoders (9 GiB) are loaded for new ones only, and freed."""
        with explain_damage(self._base):
            self._embeddings.update(self._encoder.encode(list(prompts)))

    def load_transformer(self, adapters: Sequence[AdapterWeight], strength: float) -> int:
        """Load the transformer afresh, merge the adapters in bfloat16, quantize, and place it on the device.

        A wrapped sampler does it once, without adapters, and then only swaps them.

        Args:
            adapters: a stack, each with its share.
            strength: multiplies every share.

        Returns:
            The number of layers adapted, over all adapters; 0 without an adapter.

        Raises:
            UserError: the adapter is damaged or of another model.
            GpuMemoryError: the weights don't fit.
        """
        self._request = (adapters, strength)
        if self._swap is not None:
            return self._swap.apply(adapters, strength)
        self._pipe.transformer = self._fast = None
        free_memory()
        if isinstance(self._quantizer, RowQuantizer):
            with explain_damage(self._base):
                self._fast = FastSampler(
                    self._pipe,
                    FastLoader(self._base, self._revision, self._quantizer.kind, self.device),
                    adapters,
                    strength,
                    self._notice,
                    first_block_cache=self._first_block_cache,
                )
            self._place_vae()
            return self._fast.modules
        merged = () if self._wrapped else adapters
        transformer, modules = merged_transformer(self._base, self._revision, merged, strength)
        place_weights(self._pipe, transformer, self._quantizer, self.device)
        if self._wrapped:
            self._swap = AdapterSwap(transformer)
            modules = self._swap.apply(adapters, strength)
        return modules

    def prove(self, identity: Identity, adapters: Sequence[AdapterWeight], strength: float) -> float | None:
        """How far the adapters that are loaded move a prediction (see `proof.prove`).

        Raises:
            UserError: they change nothing.
        """
        if self._fast is not None:
            return check_effect(self._fast.effect, adapters, strength)
        return prove(self._pipe.transformer, self._swap, identity, adapters, strength)

    def auto_batch_size(self, job: Job) -> int:
        """How many images of this job's size go through at once, by the memory that is free now."""
        return self._fast.batch_size(job) if self._fast is not None else stock_batch_size(job, self.device)

    def images(self, jobs: Sequence[Job], batch_size: int) -> Iterator[tuple[Job, "Image | None"]]:
        """Make the pictures of jobs of one size, number of steps and guidance.

        An out-of-memory error halves the batch, for the rest too; then blocks are streamed from RAM, where the model
        can. A picture that would be black, its latents not being finite, is made again in bfloat16 after the others,
        and is None if that does not help.

        Raises:
            GpuMemoryError: not even one image fits.
        """
        pending, black = list(jobs), list[Job]()
        if self._fast is not None and pending:
            self._fast.expect(pending[0], min(batch_size, len(pending)), len(pending))
            self._fast.prepare(pending, {text: one.pooled for text, one in self._embeddings.items()})
        while pending:
            batch = pending[:batch_size]
            latents = self._denoise(batch + batch[-1:] * self._padding(batch, batch_size))
            if latents is None:
                batch_size = self._make_room(batch)
                continue
            for row, job in enumerate(batch):
                image = self._decode(job, latents[row : row + 1])
                if image is None and not self._precise:
                    black.append(job)
                else:
                    yield job, image
            del pending[: len(batch)]
        if self._fast is not None:
            self._fast.report_saved()
        if black:
            yield from self._again(black)

    def _padding(self, batch: Sequence[Job], batch_size: int) -> int:
        """Pictures to add to a last batch that is not full, and to throw away."""
        full = self._fast is not None and self._fast.padded
        return batch_size - len(batch) if full else 0

    @property
    def _precise(self) -> bool:
        """Whether the weights are in bfloat16: nothing here is more precise."""
        return isinstance(self._quantizer, Plain) or self._quantizer == RowQuantizer("bf16")

    def _make_room(self, batch: Sequence[Job]) -> int:
        """After memory ran out: the batch size to go on with.

        Raises:
            GpuMemoryError: nothing more can be given up.
        """
        free_memory()
        if len(batch) > 1:
            self._notice(f"GPU memory ran out with {len(batch)} pictures at a time; going on with {len(batch) // 2}.")
            return len(batch) // 2
        if self._fast is None or not self._fast.descend():
            raise too_large(batch[0])
        return 1

    def _again(self, jobs: Sequence[Job]) -> "Iterator[tuple[Job, Image | None]]":
        """Pictures whose latents overflowed, in bfloat16; the model is loaded for it and put back."""
        self._notice(f"{len(jobs)} pictures came out black (not finite); making them again in bfloat16.")
        request = self._request
        self._pipe.transformer = self._fast = self._swap = None
        free_memory()
        precise = FluxSampler(self._base, self._revision, quantizer("none"), on_notice=self._notice)
        precise._embeddings = self._embeddings
        precise.load_transformer(*request)
        yield from precise.images(jobs, 1)
        del precise
        free_memory()
        self.load_transformer(*request)

    def _denoise(self, batch: Sequence[Job]) -> "torch.Tensor | None":
        """Packed latents, one row a job; None when memory ran out.

        The caller frees memory: inside `except` the traceback still holds the tensors.
        """
        import torch

        job = batch[0]
        embeddings = [self._embeddings[one.prompt] for one in batch]
        try:
            if self._fast is not None:
                self._fast.begin(batch, {one.prompt: self._embeddings[one.prompt].pooled for one in batch})
            began = time.perf_counter()
            with torch.no_grad():
                result: torch.Tensor = self._pipe(
                    prompt_embeds=torch.cat([one.prompt for one in embeddings]).to(self.device),
                    pooled_prompt_embeds=torch.cat([one.pooled for one in embeddings]).to(self.device),
                    width=job.width,
                    height=job.height,
                    num_inference_steps=job.num_inference_steps,
                    guidance_scale=job.guidance_scale,
                    generator=[torch.Generator("cpu").manual_seed(one.seed) for one in batch],
                    output_type="latent",
                ).images
            if self._fast is not None:
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                self._fast.took(batch, len(batch), time.perf_counter() - began)
        except torch.OutOfMemoryError:
            return None
        return result

    def _decode(self, job: Job, packed: "torch.Tensor") -> "Image | None":
        """The picture of one row of latents; None for one that holds NaN or infinity."""
        while (pixels := decode(self._pipe, job, packed)) is None:
            self._make_room([job])
        return picture(pixels)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)
