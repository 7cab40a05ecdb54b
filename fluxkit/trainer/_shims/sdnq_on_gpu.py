"""Shim: sdnq quantizes on the GPU, weight by weight, while the model stays on the CPU; and what comes out is looked at.

Why: SimpleTuner's `quantize_via = "accelerator"` means to quantize that way ("load to CPU, quantize on CUDA"), but
`Trainer.init_precision` moves the whole bf16 model to the GPU first: 22 GiB, more than the cards have that need 5 bits.
`quantize_via = "cpu"` quantizes on the CPU, which takes minutes, and holds the quantized model in RAM.
Here: with `quantize_via = "cpu"` each weight goes to the GPU, is quantized there and stays there. The largest weight
is compared with what it was: on an H200 (torch 2.11, sdnq 0.2.5) int5, with a sign, is quantized to noise where sdnq
compiles that, which no loss shows on random weights. Wrong products of right weights are not seen here:
`benchmarks/fidelity.py` sees them.
Bound to: the releases of the defects `sdnq-whole-model` and `sdnq-int5-noise` in releases.toml.
Measured, 2026-11-28, on an H200 capped at 11 GiB: 7.57 GiB at the end of loading uint5, nothing more on the way.
"""

import functools
from typing import Any

MODULES = ("sdnq.training",)
MOST_OFF = 0.2  # of a weight's norm: 5 bits are off by a twentieth of it, noise by more than all of it


def apply(training: Any) -> None:
    """Wrap what SimpleTuner quantizes with; it imports the function when it needs it."""
    original = training.sdnq_training_post_load_quant

    @functools.wraps(original)
    def quantize(model: Any, *args: Any, **options: Any) -> Any:
        import torch

        if str(options.get("quantization_device")) == "cpu" and torch.cuda.is_available():
            options |= {"quantization_device": "cuda", "return_device": "cuda"}
        name, weight = max(_weights(model), key=lambda found: found[1].numel(), default=("", None))
        before = None if weight is None else weight.detach().clone()
        quantized = original(model, *args, **options)
        if before is not None:
            check(name, before, quantized.get_submodule(name).weight)
        return quantized

    training.sdnq_training_post_load_quant = quantize


def check(name: str, before: Any, after: Any) -> None:
    """Compare a weight with what it was.

    Args:
        name: of its module.
        before: the weight, [out, in].
        after: the quantized one, which may be on another device.

    Raises:
        RuntimeError: it is another weight.
    """
    values = after.dequantize() if hasattr(after, "sdnq_dequantizer") else after
    values = values.detach().to("cpu").float()
    before = before.to("cpu").float()
    off = float((values - before).norm() / before.norm())
    print(f"fluxkit: sdnq's {name} is off by {off:.1%} of its norm", flush=True)
    if not off <= MOST_OFF:
        raise RuntimeError(
            f"sdnq's {name} is off by {off:.0%} of its norm: this GPU quantizes wrongly with this torch and sdnq. "
            "Choose another base_model_precision (nf4-bnb, int8-quanto)."
        )


def _weights(model: Any) -> Any:
    """The matrices of the linear layers, by the module's name."""
    for name, module in model.named_modules():
        if name and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
            yield name, module.weight
