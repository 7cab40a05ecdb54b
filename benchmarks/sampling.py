"""How fast fluxkit makes pictures, beside a script that keeps the whole pipeline on the GPU and makes one at a time.

    python benchmarks/sampling.py --out FOLDER [--variants a,b] [--budget SECONDS] [--tiny]

A full-size FLUX.1-dev with random weights, made on the GPU tensor by tensor (no disk): speed and memory don't depend
on the values. Every variant has its own time limit and its own line in FOLDER/results.jsonl, written as it ends.
`--tiny` takes the tiny model and 64×64 pixels instead, on a CPU too: the same code path, in a minute.
"""

import argparse
import contextlib
import gc
import json
import math
import signal
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from fluxkit.sampling.fastflux import FastFlux, attention
from fluxkit.sampling.linears import RowLinear, int8_fused_product
from fluxkit.sampling.ops import FusedOps, PlainOps, quantize_rows
from fluxkit.sampling.tables import Condition, batch_rows, make_tables
from fluxkit.sampling.tiny_flux import make_tiny_flux

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PROMPT = "behitek, a portrait of a man in a garden at dusk, 85 mm, soft light"
GUIDANCE = 3.0
BF16 = torch.bfloat16
# Block M, N, K, warps, stages of the int8 product.
TILES = ((128, 256, 128, 8, 3), (128, 128, 128, 8, 4), (128, 256, 64, 8, 4), (256, 128, 64, 8, 4), (128, 128, 64, 4, 4))


class Bench:
    """The run: its model, its clock, its results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.out, self.tiny, self.label = options.out, options.tiny, options.label
        self.deadline = time.monotonic() + options.budget
        self.size, self.steps = (64, 4) if self.tiny else (1024, 20)
        self.seeds = (0, 1)
        self.tokens = (self.size // 16) ** 2 + 512
        self.rates: dict[str, float] = {}
        self.seconds: dict[str, dict[tuple[int, ...], float]] = {}
        self.reference: dict[int, tuple[torch.Tensor, Any]] = {}
        self.guide_seconds = math.nan
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="fluxkit-sampling-"))  # pictures: only their time counts
        self.base = make_tiny_flux(self.work / "tiny-flux")
        self.pipe: Any = FluxPipeline.from_pretrained(self.base, dtype=BF16)
        self.pipe.set_progress_bar_config(disable=True)
        config = dict(self.pipe.transformer.config)
        if not self.tiny:
            with torch.device("meta"):
                config = dict(FluxTransformer2DModel(guidance_embeds=True).config)
        self.config = {key: value for key, value in config.items() if not key.startswith("_")}
        with torch.device("meta"):
            self.shapes = {key: value.shape for key, value in self.diffusers_model().state_dict().items()}
        self.pipe.transformer = None
        if not self.tiny:
            self.pipe.vae = full_vae()
        self.pipe.vae.to(DEVICE)
        self.embeds: Any = None
        self.pooled: Any = None
        self.condition = Condition(PROMPT, self.size, self.size, self.steps, GUIDANCE)

    def diffusers_model(self) -> Any:
        """An empty transformer of the run's size."""
        return FluxTransformer2DModel.from_config(self.config)

    def source(self, name: str) -> torch.Tensor:
        """A weight, the same whenever it is asked for."""
        shape = self.shapes[name]
        if len(shape) == 1 and "norm_" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=BF16, device=DEVICE)
        generator = torch.Generator(DEVICE).manual_seed(zlib.crc32(name.encode()))
        std = 0.02 if not self.tiny else 0.1
        return torch.randn(shape, generator=generator, device=DEVICE, dtype=BF16).mul_(std)

    def record(self, name: str, **facts: Any) -> None:
        """One line of results, on the screen and in the file."""
        line = {"variant": name, "label": self.label, **facts}
        print(json.dumps(line), flush=True)
        with (self.out / "results.jsonl").open("a") as handle:
            handle.write(json.dumps(line) + "\n")

    def attempt(self, name: str, limit: int, work: Callable[[], None]) -> None:
        """Run a variant; whatever happens, the next one starts."""
        left = self.deadline - time.monotonic()
        if left < 5:
            return self.record(name, skipped="no time left")
        began = time.monotonic()
        try:
            signal.signal(signal.SIGALRM, _too_slow)
            signal.setitimer(signal.ITIMER_REAL, min(limit, left))
            work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            text = "".join(traceback.format_exception(error))
            self.record(name, failed=f"{type(error).__name__}: {error}"[:600], trace=text[-1500:])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.pipe.transformer = None
        free()
        print(f"# {name}: {time.monotonic() - began:.1f} s, {self.deadline - time.monotonic():.0f} left", flush=True)

    # --- what the others need -------------------------------------------------------------------------------------

    def encode(self) -> None:
        """Encode the prompt, with encoders of the full size that stay in the pipeline until `drop_encoders`."""
        if not self.tiny:
            self.pipe.text_encoder, self.pipe.text_encoder_2 = full_encoders()
        for encoder in (self.pipe.text_encoder, self.pipe.text_encoder_2):
            encoder.to(DEVICE)
        began = clock()
        with torch.no_grad():
            self.embeds, self.pooled, _ = self.pipe.encode_prompt(
                prompt=PROMPT, prompt_2=PROMPT, max_sequence_length=512
            )
        self.record("encode", seconds=clock() - began)

    def drop_encoders(self) -> None:
        """Free the text encoders."""
        self.pipe.text_encoder = self.pipe.text_encoder_2 = None
        free()

    def denoise(self, seeds: tuple[int, ...], steps: int | None = None) -> torch.Tensor:
        """Packed latents of these seeds, from the prompt's embeddings."""
        count = len(seeds)
        with torch.no_grad():
            latents: torch.Tensor = self.pipe(
                prompt_embeds=self.embeds.expand(count, -1, -1),
                pooled_prompt_embeds=self.pooled.expand(count, -1),
                width=self.size,
                height=self.size,
                num_inference_steps=steps or self.steps,
                guidance_scale=GUIDANCE,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                output_type="latent",
            ).images
        return latents

    def decode(self, packed: torch.Tensor) -> Any:
        """One picture."""
        with torch.no_grad():
            latents = self.pipe._unpack_latents(packed, self.size, self.size, self.pipe.vae_scale_factor)
            latents = latents / self.pipe.vae.config.scaling_factor + self.pipe.vae.config.shift_factor
            pixels = self.pipe.vae.decode(latents.to(BF16), return_dict=False)[0]
            return self.pipe.image_processor.postprocess(pixels, output_type="pil")[0]

    # --- measuring ------------------------------------------------------------------------------------------------

    def flops(self, batch: int) -> dict[str, float]:
        """Of one step, counted from shapes: products of the blocks by kind of operand, and attention."""
        with torch.device("meta"):
            linear = 0.0
            for key, shape in self.shapes.items():
                if len(shape) == 2 and ".norm" not in key and "blocks" in key:
                    text = any(part in key for part in ("add_", "context"))
                    image = key.startswith("transformer_blocks") and not text
                    rows = 512 if text else self.tokens - 512 if image else self.tokens
                    linear += 2.0 * rows * shape[0] * shape[1]
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        blocks = self.config["num_layers"] + self.config["num_single_layers"]
        return {"linear": linear * batch, "attention": 4.0 * self.tokens**2 * width * blocks * batch}

    def limit(self, kind: str, batch: int) -> float:
        """Seconds that a step's products take at this run's rates; attention is always in bf16."""
        if kind not in self.rates:
            return math.nan
        count = self.flops(batch)
        return count["linear"] / self.rates[kind] + count["attention"] / self.rates["bf16"]

    def timed(
        self, name: str, kind: str, batch: int, *, begin: Callable[[int, int], None], warm: int = 2, **more: Any
    ) -> None:
        """Warm up, then one batch of full pictures, decoded and written as fluxkit does: beside the next step."""
        seeds = self.seeds[:1] if batch == 1 else tuple(range(batch))
        peak_reset()
        began = clock()
        begin(batch, warm)
        self.denoise(seeds, warm)
        cold = clock() - began
        begin(batch, self.steps)
        rounds = 2 if batch == 1 else 1
        denoised = 0.0
        began = clock()
        with ThreadPoolExecutor(2) as pool:
            for number in range(rounds):
                start = clock()
                begin(batch, self.steps)
                latents = self.denoise(tuple(seed + number for seed in seeds))
                denoised += clock() - start
                if number == 0:
                    self.record(f"{name}-denoised", batch=batch, s_step=denoised / self.steps, peak_gib=peak())
                for row in range(batch):
                    image = self.decode(latents[row : row + 1])
                    pool.submit(image.save, self.work / f"{name}-{batch}-{number}-{row}.png")
        seconds = (clock() - began) / rounds
        step = denoised / rounds / self.steps
        facts = {
            "batch": batch, "s_step": step, "s_image": seconds / batch, "first_steps_s": cold, "peak_gib": peak(),
            "of_limit": self.limit(kind, batch) / step, "against_guide": self.guide_seconds / (seconds / batch),
            "since_process_start_s": time.time() - psutil.Process().create_time(),
        }  # fmt: skip
        self.record(name, **facts, **more)
        if len(self.reference) == len(self.seeds) and batch == 1:
            self.record(f"{name}-quality", **self.compare(latents, self.seeds[-1]))

    def compare(self, latents: torch.Tensor, seed: int) -> dict[str, float]:
        """Against diffusers' bf16 picture of the same seed."""
        import numpy as np

        other, picture = self.reference[seed]
        one, two = latents.float().cpu(), other.float()
        pixels = [np.asarray(image, dtype=np.float64) for image in (self.decode(latents), picture)]
        error = float(((pixels[0] - pixels[1]) ** 2).mean())
        return {
            "psnr_db": 10 * math.log10(255**2 / error) if error else math.inf,
            "latent_max": float((one - two).abs().max()),
            "latent_relative": float((one - two).norm() / two.norm()),
        }

    def measure_rates(self) -> None:
        """Each kind of product at the model's shapes, and attention."""
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        long, image = self.tokens, self.tokens - 512
        shapes = {
            (long, width, 7 * width): self.config["num_single_layers"],
            (long, 5 * width, width): self.config["num_single_layers"],
            (image, width, 3 * width): self.config["num_layers"],
            (image, width, width): self.config["num_layers"],
            (image, width, 4 * width): self.config["num_layers"],
            (image, 4 * width, width): self.config["num_layers"],
        }
        for kind in ("bf16", "fp8", "fp8_one_scale", "int8"):
            with contextlib.suppress(RuntimeError, NotImplementedError, ValueError):
                times = {shape: product_seconds(*shape, kind) for shape in shapes}
                total = sum(times[shape] * count for shape, count in shapes.items())
                self.rates[kind] = sum(2.0 * math.prod(s) * count for s, count in shapes.items()) / total
                self.record(f"rate-{kind}", tflops=self.rates[kind] / 1e12, by_shape={
                    "x".join(map(str, s)): 2.0 * math.prod(s) / t / 1e12 for s, t in times.items()
                })  # fmt: skip
        heads, each = self.config["num_attention_heads"], self.config["attention_head_dim"]
        qkv = torch.randn(1, long, 3 * width, device=DEVICE, dtype=BF16)
        parts = [one.unflatten(-1, (heads, each)).transpose(1, 2) for one in qkv.chunk(3, dim=-1)]
        work = 4.0 * long**2 * width
        facts = {"chosen": work / seconds_of(lambda: attention(*parts)) / 1e12}
        if DEVICE.type == "cuda":
            from torch.nn.attention import SDPBackend, sdpa_kernel

            for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
                with contextlib.suppress(RuntimeError), sdpa_kernel(backend):
                    facts[backend.name] = work / seconds_of(lambda: attention(*parts)) / 1e12
        self.record("rate-attention", tflops=facts)

    def check_kernels(self) -> None:
        """Fused against plain operations on this device, relative error."""
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        x = torch.randn(2, 40, width, device=DEVICE, dtype=BF16)
        modulation = torch.randn(2, 6 * width, device=DEVICE, dtype=BF16)
        scale, shift = modulation.chunk(6, dim=1)[1:3]
        wide = torch.randn(2, 40, 7 * width, device=DEVICE, dtype=BF16)
        up = wide[:, :, 3 * width :]
        for kind in ("bf16", "fp8", "int8"):
            plain, fused = PlainOps(kind), FusedOps(kind)
            found = {}
            for name, call in (
                ("norm_modulate", lambda ops: ops.norm_modulate(x, scale, shift)),
                ("activate", lambda ops: ops.activate(up, x)),
                ("rows", lambda ops: ops.rows(wide[:, 7:])),
            ):
                one, two = (back(call(ops)) for ops in (fused, plain))
                found[name] = float((one - two).norm() / two.norm())
            self.record(f"check-{kind}", relative_error=found)

    def load_fast(self, name: str, kind: Any, ops: PlainOps) -> tuple[FastFlux, Callable[[int, int], None]]:
        """The fast model, tables made, ready to begin a batch of so many pictures with so many steps."""
        peak_reset()
        began = clock()
        model = FastFlux(self.config, self.source, kind, ops)
        built = clock() - began
        wanted = {Condition(PROMPT, self.size, self.size, n, GUIDANCE): self.pooled for n in {2, self.steps}}
        began = clock()
        tables = make_tables(model, self.source, self.pipe.scheduler, wanted)
        self.record(f"load-{name}", build_s=built, tables_s=clock() - began, peak_gib=peak(), resident_gib=allocated())
        self.pipe.transformer = model

        def begin(batch: int, steps: int) -> None:
            one = Condition(PROMPT, self.size, self.size, steps, GUIDANCE)
            model.begin(batch_rows(tables, [one] * batch, DEVICE))

        return model, begin

    # --- variants -------------------------------------------------------------------------------------------------

    def guide(self) -> None:
        """The script that fluxkit replaces, written anew: everything resident, one at a time, encoded each time."""
        from optimum.quanto import freeze, qint8, quantize

        model = self.load_diffusers()
        began = clock()
        quantize(model, weights=qint8)
        freeze(model)
        quantized = clock() - began
        free()
        peak_reset()
        times = []
        for number, steps in enumerate((2, self.steps, self.steps)):
            start = clock()
            image = self.pipe(
                prompt=PROMPT, width=self.size, height=self.size, num_inference_steps=steps, guidance_scale=GUIDANCE,
                max_sequence_length=512, generator=torch.Generator("cpu").manual_seed(number),
            ).images[0]  # fmt: skip
            image.save(self.work / f"guide-{number}.png")
            times.append(clock() - start)
        self.guide_seconds = sum(times[1:]) / 2
        self.record("guide", batch=1, s_image=self.guide_seconds, each=times, peak_gib=peak(), quantize_s=quantized)

    def load_diffusers(self) -> Any:
        """Diffusers' transformer in bf16, in the pipeline."""
        with torch.device("meta"):
            model = self.diffusers_model()
        model.load_state_dict({name: self.source(name) for name in self.shapes}, assign=True)
        # Not in the state: made from the config.
        model.requires_grad_(False).eval()
        self.pipe.transformer = model
        return model

    def bf16_diffusers(self) -> None:
        """Diffusers in bf16, eager; its pictures are what the others are compared with."""
        self.load_diffusers()
        self.timed("bf16-diffusers", "bf16", 1, begin=lambda *_: None)
        for seed in self.seeds:
            latents = self.denoise((seed,))
            self.reference[seed] = (latents.cpu(), self.decode(latents))

    def fast(self, kind: Any, batches: tuple[int, ...] = (1, 2, 4)) -> None:
        """Fluxkit's own arrangement with fused kernels, nothing compiled."""
        ops = FusedOps(kind) if DEVICE.type == "cuda" else PlainOps(kind)
        model, begin = self.load_fast(f"fast-{kind}", kind, ops)
        for batch in batches:
            self.timed(f"fast-{kind}", kind, batch, begin=begin)
        if not batches:
            begin(1, self.steps)
            self.record(f"fast-{kind}-quality", **self.compare(self.denoise(self.seeds[-1:]), self.seeds[-1]))
        if DEVICE.type == "cuda" and kind == "fp8" and batches:
            self.profile(f"fast-{kind}", begin)
        if DEVICE.type == "cuda" and kind == "int8":
            tile = self.best_tile()
            for layer in model.modules():
                if isinstance(layer, RowLinear):
                    layer.tile = tile
            self.timed("fast-int8-fused", "int8", 1, begin=begin, tile=tile)

    def best_tile(self) -> tuple[int, ...]:
        """The fastest block sizes of the int8 product."""
        width = self.config["num_attention_heads"] * self.config["attention_head_dim"]
        found: dict[tuple[int, ...], float] = {}
        x = quantize_rows(torch.randn(self.tokens, width, device=DEVICE, dtype=BF16), "int8")
        layer = RowLinear(torch.randn(4 * width, width, device=DEVICE, dtype=BF16), None, "int8")
        for tile in TILES:
            with contextlib.suppress(Exception):
                seconds = seconds_of(
                    lambda tile=tile: int8_fused_product(x.values, x.scale, layer.weight, layer.scale, None, tile)
                )
                found[tile] = 2.0 * self.tokens * width * 4 * width / seconds / 1e12
        self.record("int8-tiles", tflops={str(tile): rate for tile, rate in found.items()})
        best = max(found, key=lambda tile: found[tile])
        self.rates["int8"] = max(self.rates.get("int8", 0.0), found[best] * 1e12)
        return best

    def compiled(self, kind: Any, batches: tuple[int, ...] = (1,)) -> None:
        """The same with plain operations, block by block through torch.compile."""
        torch._dynamo.reset()
        model, begin = self.load_fast(f"compiled-{kind}", kind, PlainOps(kind))
        for block in (*model.doubles, *model.singles):
            block.compile(fullgraph=True)
        for batch in batches:
            self.timed(f"compiled-{kind}", kind, batch, begin=begin)
        with contextlib.suppress(Exception):
            artifacts = torch.compiler.save_cache_artifacts()
            if artifacts:
                self.record(f"compiled-{kind}-cache", mib=len(artifacts[0]) / 2**20)
        if DEVICE.type == "cuda" and kind == "fp8":
            self.profile(f"compiled-{kind}", begin)

    def quanto(self) -> None:
        """The guide's quantization with embeddings kept and encoders freed."""
        from optimum.quanto import freeze, qint8, quantize

        model = self.load_diffusers()
        quantize(model, weights=qint8)
        freeze(model)
        free()
        self.timed("quanto-int8", "bf16", 1, begin=lambda *_: None)

    def profile(self, name: str, begin: Callable[[int, int], None]) -> None:
        """Where a step's time goes, by kernel."""
        from torch.profiler import ProfilerActivity, profile

        begin(1, 2)
        with profile(activities=[ProfilerActivity.CUDA]) as prof:
            self.denoise((0,), 2)
            clock()
        rows = sorted(prof.key_averages(), key=lambda row: -row.self_device_time_total)[:22]
        self.record(f"profile-{name}", ms_two_steps={
            row.key[:90]: [round(row.self_device_time_total / 1000, 2), row.count] for row in rows
        })  # fmt: skip

    def vae(self) -> None:
        """Decoding as it is, and with channels last."""
        latents = torch.randn(1, self.tokens - 512, 64, device=DEVICE, dtype=BF16)
        peak_reset()
        before = allocated()
        plain = seconds_of(lambda: self.decode(latents), repeat=3)
        facts = {"plain_s": plain, "plain_gib": peak() - before}
        self.pipe.vae.to(memory_format=torch.channels_last)
        peak_reset()
        facts |= {
            "channels_last_s": seconds_of(lambda: self.decode(latents), repeat=3),
            "channels_last_gib": peak() - before,
        }
        self.pipe.vae.to(memory_format=torch.contiguous_format)
        began = time.monotonic()
        self.decode(latents).save(self.work / "vae.png")
        self.record("vae", **facts, decode_and_png_s=time.monotonic() - began)

    def capped(self, gib: float) -> None:
        """One picture with fp8 or int8 blocks while the allocator may have only so much."""
        total = torch.cuda.get_device_properties(0).total_memory / 2**30
        torch.cuda.set_per_process_memory_fraction(gib / total)
        try:
            _, begin = self.load_fast(f"cap-{gib}", "fp8", FusedOps("fp8"))
            self.timed(f"cap-{gib}", "fp8", 1, begin=begin)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


def full_vae() -> Any:
    """A VAE of FLUX.1's size."""
    with on_device():
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, scaling_factor=0.3611,
            shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024,
        ).eval()  # fmt: skip


def full_encoders() -> tuple[Any, Any]:
    """CLIP-L and T5-XXL by size."""
    clip = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        hidden_act="quick_gelu", projection_dim=768,
    )  # fmt: skip
    t5 = T5Config(
        d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, vocab_size=32128,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    )  # fmt: skip
    with on_device():
        models = CLIPTextModel(clip), T5EncoderModel(t5)
    for model in models:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.02)
        model.eval().requires_grad_(False)
    return models


@contextlib.contextmanager
def on_device() -> Iterator[None]:
    """Modules made inside are in bf16 on the device."""
    torch.set_default_dtype(BF16)
    try:
        with torch.device(DEVICE):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def product_seconds(rows: int, width: int, columns: int, kind: str) -> float:
    """How long one product takes."""
    x = torch.randn(rows, width, device=DEVICE, dtype=BF16)
    weight = torch.randn(columns, width, device=DEVICE, dtype=BF16)
    if kind == "fp8_one_scale":
        one, two = (quantize_rows(t, "fp8").values for t in (x, weight))
        unit = torch.ones((), device=DEVICE)
        return seconds_of(lambda: torch._scaled_mm(
            one, two.t(), scale_a=unit, scale_b=unit, out_dtype=BF16, use_fast_accum=True
        ))  # fmt: skip
    layer = RowLinear(weight, torch.zeros(columns, device=DEVICE, dtype=BF16), kind)  # type: ignore[arg-type]
    given = quantize_rows(x[None], kind)  # type: ignore[arg-type]
    if kind == "int8":
        return seconds_of(lambda: torch._int_mm(given.values[0], layer.weight.t()))
    return seconds_of(lambda: layer(given))


def back(rows: Any) -> torch.Tensor:
    """Rows as numbers again."""
    values = rows.values.float().reshape(-1, rows.values.shape[-1])
    return values if rows.scale is None else values * rows.scale


def seconds_of(call: Callable[[], object], repeat: int = 10) -> float:
    """The mean of several calls, warm."""
    with torch.no_grad():
        for _ in range(2):
            call()
        began = clock()
        for _ in range(repeat):
            call()
        return (clock() - began) / repeat


def clock() -> float:
    """Seconds, when all work that was given to the device is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def free() -> None:
    """Give memory back."""
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def peak() -> float:
    """GiB on the device at most since the last reset."""
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0


def allocated() -> float:
    """GiB on the device now."""
    return torch.cuda.memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0


def peak_reset() -> None:
    """Forget the peak."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _too_slow(*_: Any) -> None:
    raise TimeoutError("this variant's time is up")


def main() -> None:
    """Run the variants in the order of their value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default="")
    parser.add_argument("--budget", type=int, default=1800)
    parser.add_argument("--label", default="")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    bench = Bench(options)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    bench.record("machine", device=name, torch=torch.__version__, setup_s=time.time() - psutil.Process().create_time())
    wanted = [one for one in options.variants.split(",") if one]
    bench.attempt("encode", 40, bench.encode)
    variants: list[tuple[str, int, Callable[[], None]]] = [
        ("rates", 20, bench.measure_rates),
        ("check", 20, bench.check_kernels),
        ("guide", 40, bench.guide),
        ("drop-encoders", 5, bench.drop_encoders),
        ("fast-fp8", 45, lambda: bench.fast("fp8")),
        ("bf16-diffusers", 30, bench.bf16_diffusers),
        ("fast-bf16", 25, lambda: bench.fast("bf16", (1,))),
        ("fast-int8", 30, lambda: bench.fast("int8", (1,))),
        ("fast-fp8-quality", 15, lambda: bench.fast("fp8", ())),
        ("vae", 10, bench.vae),
        ("cap-11", 20, lambda: bench.capped(11.0)),
        ("compiled-fp8", 120, lambda: bench.compiled("fp8", (1, 2, 4))),
        ("compiled-bf16", 60, lambda: bench.compiled("bf16")),
        ("quanto", 25, bench.quanto),
    ]
    for key, limit, work in variants:
        if not wanted or key in wanted or key == "drop-encoders":
            bench.attempt(key, limit, work)


if __name__ == "__main__":
    main()
