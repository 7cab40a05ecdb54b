"""How the transformer's weights are held while sampling; the only module that names optimum-quanto.

quanto is in maintenance mode, so nothing else may depend on it. A quantizer runs after the adapter is merged:
merging into quantized weights changes nothing and raises nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fluxkit.errors import UserError
from fluxkit.extras import require
from fluxkit.hardware import gpus
from fluxkit.sampling.ops import WeightKind
from fluxkit.sampling.plan import Quantization

if TYPE_CHECKING:
    import torch


class Quantizer(Protocol):
    """Turns a model in bfloat16 into what is sampled with."""

    def place(self, model: "torch.nn.Module", device: "torch.device") -> None:
        """Quantize `model` in place, freeze it, and leave it on `device`."""


class Plain:
    """`none`: bfloat16 as it is."""

    def place(self, model: "torch.nn.Module", device: "torch.device") -> None:
        """Move `model` to `device`."""
        model.to(device)


class QuantoInt8:
    """`int8`: optimum-quanto qint8 weights, what training used too (output error .014 against bfloat16)."""

    def place(self, model: "torch.nn.Module", device: "torch.device") -> None:
        """Quantize, freeze and move `model`, one layer at a time.

        A layer is moved before it is frozen: the device does the arithmetic (0.3 s on a GPU, two minutes on a CPU),
        and never holds more than one layer in bfloat16 beside the int8 weights (22 GiB for the whole of FLUX).
        """
        from optimum.quanto import QModuleMixin, qint8, quantize

        quantize(model, weights=qint8)
        frozen = 0
        for layer in model.modules():
            if isinstance(layer, QModuleMixin):
                layer.to(device)
                layer.freeze()
                frozen += 1
        if not frozen:
            raise RuntimeError("quanto quantized no layer: it does not know this model's layers")
        model.to(device)


@dataclass(frozen=True)
class RowQuantizer:
    """Weights (fp8 and int8: inputs too, row by row) quantized in `FastFlux`, which replaces diffusers' transformer.

    Args:
        kind: of the blocks' weights; `bf16` quantizes nothing.
    """

    kind: WeightKind


def quantizer(name: str) -> Quantizer | RowQuantizer:
    """The quantizer of that name.

    Raises:
        UserError: there is none in this version, the GPU can't do it, or a package is not installed.
    """
    if name == "int8":
        return QuantoInt8()
    if name == "none":
        return Plain()
    if name == "int8-dynamic":
        return RowQuantizer("int8")
    if name == "fp8":
        found = gpus(details=True)
        if found and found[0].capability < _FP8_CAPABILITY:
            raise UserError(
                f"The GPU ({found[0].name}) can't multiply in fp8; that came with NVIDIA's Ada and Hopper.",
                fix="Use --quantize auto (the default), int8-dynamic or int8.",
            )
        return RowQuantizer("fp8")
    if name == "nf4":
        require("nf4", "--quantize nf4")
        return RowQuantizer("nf4")
    raise UserError(
        f"Quantization {name} is not in this version of fluxkit.",
        fix="Use auto (the default), int8, int8-dynamic, fp8, nf4 or none.",
    )


@dataclass(frozen=True)
class Path:
    """A way to make pictures, with what was measured at full size, random weights: H200, 2026-11-27; int8 on an H100.

    Args:
        name: of the quantization.
        capability: the least CUDA compute capability.
        speed: pictures a second against the guide's script, nothing compiled.
        psnr_db: against diffusers' bfloat16 picture of the same seed.
        latent_error: of the latents, relative Euclidean distance.
    """

    name: Quantization
    capability: tuple[int, int]
    speed: float
    psnr_db: float
    latent_error: float


# `none` is not chosen by itself: 16 GiB of weights. Nor is nf4: its latents are off by 19%, far beyond the bound
# (27.0 dB). docs/sampling-speed.md has the tables.
PATHS = (
    Path("fp8", (8, 9), 3.02, 39.1, 0.048),
    Path("int8-dynamic", (8, 0), 2.70, 44.9, 0.018),
    Path("int8", (0, 0), 1.03, 42.0, 0.031),
)
# A path beyond this is never chosen by `auto`.
LEAST_PSNR_DB, LARGEST_LATENT_ERROR = 35.0, 0.06


def fastest(*, compared: bool, cached: bool = False, paths: tuple[Path, ...] = PATHS) -> Quantization:
    """What `auto` means on this machine: the fastest path whose pictures stay within the bound.

    Args:
        compared: adapters or strengths are compared, so they stay beside int8 weights.
        cached: the first-block cache is on, which only fluxkit's own transformer has: no int8 of quanto's.
        paths: to choose from.
    """
    found = gpus(details=True)
    otherwise: Quantization = "none" if cached else "int8"
    if (compared and not cached) or not found:
        return otherwise
    good = [
        one
        for one in paths
        if one.capability <= found[0].capability
        and one.psnr_db >= LEAST_PSNR_DB
        and one.latent_error <= LARGEST_LATENT_ERROR
        and not (cached and one.name == "int8")
    ]
    return max(good, key=lambda one: one.speed).name if good else otherwise


def check_first_block_cache(name: str, threshold: float | None) -> None:
    """Refuse the first-block cache where it has no effect.

    Args:
        name: of the quantization.
        threshold: of the cache; None where it is off.

    Raises:
        UserError: the quantization runs in diffusers' transformer, or the threshold makes no sense.
    """
    if threshold is None:
        return
    if not 0 < threshold < 1:
        raise UserError(f"{threshold:g} is no threshold of the first-block cache.", fix="Try 0.08; it is below 1.")
    if name == "int8":
        raise UserError(
            "--first-block-cache works in fluxkit's own transformer; int8 (optimum-quanto) runs in diffusers'.",
            fix="Add --quantize auto, which takes the fastest that has it; or fp8, int8-dynamic, nf4 or none.",
        )


# torch._scaled_mm's row-wise scales.
_FP8_CAPABILITY = (8, 9)
