"""The VAE alone: diffusers' and fluxkit's decoder."""

import functools
import time

import torch

from benchmarks.speed.device import BF16, DEVICE, allocated, free, peak, peak_reset, seconds_of
from benchmarks.speed.profiling import profile_call
from benchmarks.speed.run import Run
from benchmarks.speed.timing import psnr
from fluxkit.sampling.decoding import picture


def decoders(run: Run) -> None:
    """Decoding as it is and with channels last; turned into a picture on the GPU and as diffusers does it."""
    import numpy as np

    pipeline, size = run.pipeline, run.setting.size
    latents = torch.randn(1, run.setting.image_tokens, 64, device=DEVICE, dtype=BF16)
    facts: dict[str, float] = {}
    found = {}
    for name, vae in (("plain", pipeline.plain_vae), ("quick", pipeline.quick_vae)):
        pipeline.vae = vae
        free()
        peak_reset()
        before = allocated()
        found[name] = np.asarray(pipeline.decode(latents), dtype=np.float64)
        facts[f"{name}_gib"] = peak() - before
        facts[f"{name}_picture_s"] = seconds_of(lambda: pipeline.decode(latents), repeat=4)
        unpacked = torch.randn(1, 16, size // 8, size // 8, device=DEVICE, dtype=BF16)
        if run.setting.tiny:
            unpacked = unpacked[:, : vae.config.latent_channels]
        call = functools.partial(vae.decode, unpacked, return_dict=False)
        facts[f"{name}_pixels_s"] = seconds_of(call, repeat=4)
        if DEVICE.type == "cuda":
            profile_call(run, f"vae-{name}", call)
    facts["psnr_db"] = psnr(found["plain"], found["quick"])
    pixels = torch.randn(1, 3, size, size, device=DEVICE, dtype=BF16)
    postprocess = functools.partial(pipeline.pipe.image_processor.postprocess, pixels, output_type="pil")
    same = np.array_equal(np.asarray(picture(pixels)), np.asarray(postprocess()[0]))
    facts["picture_s"] = seconds_of(lambda: picture(pixels))
    facts["postprocess_s"] = seconds_of(postprocess)
    began = time.monotonic()
    pipeline.decode(latents).save(run.work / "vae.png")
    run.record("vae", **facts, same_bytes_as_postprocess=same, decode_and_png_s=time.monotonic() - began)
