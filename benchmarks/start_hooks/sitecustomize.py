"""Loaded into a real `fluxkit sample` by benchmarks/start.py: notes when what happened, and what it took.

It wraps functions after their modules are imported, and imports nothing itself. FLUXKIT_START_CAP_GIB makes the GPU
look and be that small; with FLUXKIT_START_FREE_GIB it looks larger or smaller than it is. FLUXKIT_START_OOM makes the
first batch of several pictures run out of memory.
"""

import atexit
import importlib.abc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEGAN = float(os.environ.get("FLUXKIT_START_BEGAN", "0"))
RESULT = os.environ.get("FLUXKIT_START_RESULT", "")
spans: list[tuple[str, float, float]] = []
notes: dict[str, Any] = {"steps": 0}


def now() -> float:
    """Seconds since the command was given."""
    return time.time() - BEGAN


def timed(owner: Any, name: str, label: str, before: Callable[[], None] = lambda: None) -> None:
    """Note the spans of a function."""
    real = getattr(owner, name)

    def wrapper(*args: Any, **given: Any) -> Any:
        before()
        began = now()
        try:
            return real(*args, **given)
        finally:
            spans.append((label, began, now()))

    setattr(owner, name, wrapper)


def steps(owner: Any) -> None:
    """Note the first step of the transformer, waiting for the GPU once; run out of memory if that is wanted."""
    real = owner.forward

    def forward(self: Any, *args: Any, **given: Any) -> Any:
        import torch

        if os.environ.get("FLUXKIT_START_OOM") and "oom" not in notes and given["hidden_states"].shape[0] > 1:
            notes["oom"] = now()
            raise torch.OutOfMemoryError("injected by the benchmark")
        began = now()
        result = real(self, *args, **given)
        notes["steps"] += 1
        if notes["steps"] == 1:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            spans.append(("first step", began, now()))
        return result

    owner.forward = forward


def cap(torch: Any) -> None:
    """Make the GPU as small as FLUXKIT_START_CAP_GIB says, for torch and for who asks what is free."""
    notes["torch"] = now()
    if "FLUXKIT_START_CAP_GIB" not in os.environ or not torch.cuda.is_available():
        return
    limit = int(float(os.environ["FLUXKIT_START_CAP_GIB"]) * 2**30)
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    shown = int(float(os.environ.get("FLUXKIT_START_FREE_GIB", os.environ["FLUXKIT_START_CAP_GIB"])) * 2**30)
    torch.cuda.mem_get_info = lambda *_: (shown - torch.cuda.memory_reserved(), shown)


def before_decoding() -> None:
    """How many steps the first batch took."""
    notes.setdefault("steps_to_decode", notes["steps"])


def patch_pipeline(module: Any) -> None:
    """The start's parts."""
    notes["pipeline_module"] = now()
    timed(module.FluxSampler, "__init__", "sampler made, torch imported")
    timed(module.FluxSampler, "encode", "prompts")
    timed(module.FluxSampler, "load_transformer", "load transformer")
    timed(module, "decode", "decode", before_decoding)


def patch_loader(module: Any) -> None:
    """The transformer's way in."""
    timed(module.FastLoader, "load", "  header read, or merged and quantized")
    timed(module.FastLoader, "tables", "tables")
    timed(module.Loaded, "settle", "weights to their places")


PATCHES: dict[str, Callable[[Any], None]] = {
    "torch": cap,
    "fluxkit.sampling.pipeline": patch_pipeline,
    "fluxkit.sampling.fast_loader": patch_loader,
    "fluxkit.sampling.fastflux": lambda module: steps(module.FastFlux),
    "diffusers.models.transformers.transformer_flux": lambda module: steps(module.FluxTransformer2DModel),
    "fluxkit.sampling.prompt_encoder": lambda module: timed(module.PromptEncoder, "_encode", "text encoders"),
    "fluxkit.sampling.worker": lambda module: timed(module, "write_image", "write"),
    "fluxkit.sampling.quantizers": lambda module: timed(module.QuantoInt8, "place", "quanto"),
    "fluxkit.commands.sample": lambda module: timed(module, "sample", "command"),
}


class Finder(importlib.abc.MetaPathFinder):
    """Lets the others find a module, and patches it once it is there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The others' answer, with a loader that patches."""
        if name not in PATCHES:
            return None
        patch = PATCHES[name]  # it stays: whoever asks whether torch is there, before it is imported, comes by here too
        spec = next((one for finder in sys.meta_path[1:] if (one := finder.find_spec(name, path, target))), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def finish() -> None:
    """Write what was seen."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        notes["allocated_gib"] = torch.cuda.max_memory_allocated() / 2**30
        notes["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    for line in Path("/proc/self/io").read_text().splitlines():
        key, _, value = line.partition(": ")
        if key in ("rchar", "read_bytes"):
            notes[key] = int(value)
    heavy = ("transformers", "diffusers", "diffusers.pipelines", "peft", "torch._dynamo", "torchao", "accelerate")
    notes["imported"] = [name for name in heavy if name in sys.modules]
    Path(RESULT).write_text(json.dumps({**notes, "spans": spans, "end": now()}))


if RESULT:
    sys.meta_path.insert(0, Finder())
    atexit.register(finish)
