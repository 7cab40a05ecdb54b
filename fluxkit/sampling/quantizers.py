"""How the transformer's weights are held while sampling; the only module that names optimum-quanto.

quanto is in maintenance mode, so nothing else may depend on it. A quantizer runs after the adapter is merged:
merging into quantized weights changes nothing and raises nothing.
"""

from typing import TYPE_CHECKING, Protocol

from fluxkit.errors import UserError

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


def quantizer(name: str) -> Quantizer:
    """The quantizer of that name.

    Raises:
        UserError: there is none in this version.
    """
    if name == "int8":
        return QuantoInt8()
    if name == "none":
        return Plain()
    raise UserError(f"Quantization {name} is not in this version of fluxkit.", fix="Use int8 (the default) or none.")
