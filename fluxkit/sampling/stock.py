"""diffusers' own pipeline and transformer: the way of `int8` (optimum-quanto), and of adapters beside the weights.

All other quantizations take `light.py` and `fast_sampler.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fluxkit.errors import GpuMemoryError
from fluxkit.sampling.adapters import merge_adapters
from fluxkit.sampling.bases import explain_damage
from fluxkit.sampling.plan import AdapterWeight, Job
from fluxkit.sampling.prompt_encoder import ENCODER_PARTS
from fluxkit.sampling.quantizers import Quantizer
from fluxkit.sampling.quiet import quiet_libraries

if TYPE_CHECKING:
    import torch

# Measured on an H200 with int8 at 1024×1024: 13.7 GiB for one image, about 1.9 GiB for each further one; beyond four
# a batch gains nothing more.
_GIB_PER_IMAGE = 2.2
_GIB_RESERVED = 3.0
_LARGEST_BATCH = 4
_CPU_BATCH = 2


def stock_pipeline(base: str, revision: str | None) -> Any:
    """Diffusers' pipeline without transformer and text encoders.

    Raises:
        UserError: the base model is missing or damaged.
    """
    import torch

    quiet_libraries()  # before they are imported any further
    with explain_damage(base):
        from diffusers import FluxPipeline

        pipe: Any = FluxPipeline.from_pretrained(
            base, revision=revision, transformer=None, dtype=torch.bfloat16, **dict.fromkeys(ENCODER_PARTS)
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def merged_transformer(
    base: str, revision: str | None, adapters: Sequence[AdapterWeight], strength: float
) -> tuple[Any, int]:
    """Diffusers' transformer in bfloat16 on the CPU with adapters merged, and the number of layers that they adapted.

    Raises:
        UserError: the base model or an adapter can't be used.
    """
    import torch

    with explain_damage(base):
        from diffusers import FluxTransformer2DModel

        transformer = FluxTransformer2DModel.from_pretrained(
            base, subfolder="transformer", revision=revision, dtype=torch.bfloat16
        )
        if lacking := sum(weight.is_meta for weight in transformer.parameters()):
            raise ValueError(f"its transformer's files lack {lacking} of the weights that its config.json names")
    modules = merge_adapters(transformer, adapters, strength) if adapters else 0
    transformer.requires_grad_(False).eval()
    return transformer, modules


def place_weights(pipe: Any, transformer: Any, quantizer: Quantizer, device: "torch.device") -> None:
    """Quantize the transformer, put it on the device with the VAE, and give it to the pipeline.

    Raises:
        GpuMemoryError: the weights don't fit.
    """
    import torch

    try:
        quantizer.place(transformer, device)
        pipe.vae.to(device)
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(
            "The model's weights don't fit into the GPU's memory.",
            fix="Close other programs that use the GPU, or use --quantize fp8 or int8-dynamic, which take less, "
            "and stream from RAM what does not fit. The smallest is nf4; its pictures differ more.",
        ) from error
    pipe.transformer = transformer


def stock_batch_size(job: Job, device: "torch.device") -> int:
    """How many images of this job's size go through at once, by the memory that is free now."""
    import torch

    if device.type != "cuda":
        return _CPU_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    per_image = _GIB_PER_IMAGE * max(job.width * job.height / 1024**2, 0.25)
    return max(1, min(_LARGEST_BATCH, int((free / 2**30 - _GIB_RESERVED) / per_image)))
