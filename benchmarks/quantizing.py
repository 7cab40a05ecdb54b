"""The precisions that SimpleTuner trains in, each made as it makes them, for one block's linears."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


def _quanto(block: torch.nn.Module, name: str) -> None:
    from optimum import quanto

    quanto.quantize(block, weights=getattr(quanto, name))
    quanto.freeze(block)


def _torchao(block: torch.nn.Module, config: Callable[[Any], Any]) -> None:
    from torchao.quantization import quant_api, quantize_

    quantize_(block, config(quant_api))


def _torchao_int8(block: torch.nn.Module) -> None:
    """What SimpleTuner 4.8.0 calls int8-torchao: torchao's quantized training, not its inference."""
    from torchao.prototype.quantized_training import int8_weight_only_quantized_training
    from torchao.quantization import quantize_

    quantize_(block, int8_weight_only_quantized_training())


def _sdnq(block: torch.nn.Module, weights: str, *, matmul: bool = False, **options: Any) -> None:
    """As SimpleTuner's defaults have it, without low-rank corrections (svd)."""
    from sdnq.training import sdnq_training_post_load_quant

    options = {"group_size": 32, "use_static_quantization": True, "use_quantized_matmul": matmul, **options}
    sdnq_training_post_load_quant(block, weights_dtype=weights, **options)


# What the 12gb candidates of 5 bits set: scales are fewer and half as wide, weights rounded to nearest.
_SMALL: dict[str, Any] = {"group_size": 64, "dequantize_fp32": False, "use_stochastic_rounding": False}
_FEW: dict[str, Any] = _SMALL | {"group_size": 128}


def _nf4(block: torch.nn.Module) -> None:
    import bitsandbytes as bnb

    for name, linear in [(n, m) for n, m in block.named_modules() if isinstance(m, torch.nn.Linear)]:
        new = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
            device="meta",  # its own first weights would be drawn on the CPU: 12 billion of them, each time
        )
        device = linear.weight.device
        new.weight = bnb.nn.Params4bit(linear.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        new.bias = linear.bias
        block.set_submodule(name, new.to(device))  # the move quantizes


@dataclass(frozen=True)
class Precision:
    """How a block is trained: its weights' bits, what makes them so, in place, and whether it is compiled then."""

    bits: int
    quantize: Callable[[torch.nn.Module], None]
    compiled: bool = False


def _uint5(block: torch.nn.Module) -> None:
    _sdnq(block, "uint5", **_FEW)


# By the name that `--precision` takes.
PRECISIONS = {
    # What the profiles are made of comes first.
    "int8-quanto": Precision(8, lambda block: _quanto(block, "qint8")),
    "nf4-bnb": Precision(4, _nf4),
    "fp8-quanto": Precision(8, lambda block: _quanto(block, "qfloat8_e4m3fn")),
    "int8-torchao": Precision(8, _torchao_int8),
    "fp8-torchao": Precision(8, lambda b: _torchao(b, lambda api: api.Float8DynamicActivationFloat8WeightConfig())),
    "fp8wo-torchao": Precision(8, lambda block: _torchao(block, lambda api: api.Float8WeightOnlyConfig())),
    "int8-sdnq": Precision(8, lambda block: _sdnq(block, "int8")),
    "int8-sdnq-compile": Precision(8, lambda block: _sdnq(block, "int8", **_FEW), compiled=True),
    "int8-sdnq-matmul": Precision(8, lambda block: _sdnq(block, "int8", matmul=True)),
    "int6-sdnq": Precision(6, lambda block: _sdnq(block, "int6")),
    "int5-sdnq": Precision(5, lambda block: _sdnq(block, "int5", **_SMALL)),
    "int5-sdnq-matmul": Precision(5, lambda block: _sdnq(block, "int5", matmul=True, **_SMALL)),
    "uint5-sdnq": Precision(5, _uint5),
    "uint5-sdnq-compile": Precision(5, _uint5, compiled=True),
    "uint4-sdnq": Precision(4, lambda block: _sdnq(block, "uint4")),
    "int4-quanto": Precision(4, lambda block: _quanto(block, "qint4")),
}
