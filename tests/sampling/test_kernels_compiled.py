"""The kernels through Triton's compiler for GPUs that this machine has not: the interpreter does not see types.

A name that had one type in a branch and another one after it, for instance, is an error here and works there.
"""

import importlib
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.slow  # the assembler
pytest.importorskip("triton", reason="Triton has no wheel for this machine")

BF16, INT8, FP8, FLOAT = "*bf16", "*i8", "*fp8e4nv", "*fp32"
# Where a pointer's name tells its type, in all kernels.
POINTERS = {
    "x_ptr": BF16, "left_ptr": BF16, "right_ptr": BF16, "change_ptr": BF16, "gate_ptr": BF16, "bias_ptr": BF16,
    "scale_ptr": BF16, "shift_ptr": BF16, "column_scale_ptr": BF16, "q_weight_ptr": BF16, "k_weight_ptr": BF16,
    "sample_ptr": BF16, "sample_column_scale_ptr": BF16, "sample_bias_ptr": BF16, "q_ptr": INT8, "k_ptr": INT8,
    "v_ptr": FP8, "a_ptr": INT8, "b_ptr": INT8,
}  # fmt: skip
NUMBERS = {"eps": "fp32", "scale": "fp32"}


class Case(NamedTuple):
    """A kernel as FLUX.1 calls it."""

    module: str
    kernel: str
    constants: dict[str, int]
    warps: int
    others: dict[str, str] = {}  # noqa: RUF012 - read only


ROWS, COLUMNS = "tensordesc<i8[64, 128]>", "tensordesc<i8[128, 128]>"
DESCRIBED = {"q_rows": ROWS, "k_rows": COLUMNS, "v_columns": COLUMNS.replace("i8", "fp8e4nv"), "out_ptr": BF16}
HEADS = {"HEADS": 24, "HALF": 64}
ATTENTION = {"HEADS": 24, "WIDTH": 128, "ROWS": 64, "TILE": 128, "STAGES": 3}
ACTIVATE = {"LEFT": 3072, "LEFT_PIECE": 1024, "RIGHT": 12288, "RIGHT_PIECE": 4096, "KIND": 1, "SCALED": 1}
CASES = (
    Case("attention_kernels", "prepare_values_kernel", {"HEADS": 24, "WIDTH": 128, "TILE": 32, "SAMPLE": 64}, 2),
    Case("attention_kernels", "quantize_rows_kernel", {**HEADS, "GROUP": 8}, 4),
    Case("attention_kernels", "attention_kernel", {**ATTENTION, "REST": 0}, 4, DESCRIBED),
    Case("attention_kernels", "attention_kernel", {**ATTENTION, "REST": 1}, 4, DESCRIBED),
    Case("row_kernels", "activate_row_kernel", ACTIVATE, 8, {"out_ptr": FP8}),
    Case("row_kernels", "rotate_row_kernel", {**HEADS, "GROUP": 8, "SCALED": 1}, 4, {"out_ptr": BF16}),
    Case("kernels", "norm_modulate_kernel", {"D": 3072, "BLOCK": 4096, "KIND": 1}, 8, {"out_ptr": FP8}),
    Case("kernels", "add_norm_kernel", {"D": 3072, "BLOCK": 4096, "SCALED": 1, "KIND": 1}, 4, {"out_ptr": FP8}),
    Case("kernels", "int8_matmul_kernel",
         {"K": 3072, "BM": 128, "BN": 128, "BK": 128, "GROUP": 8, "BIAS": 1}, 4,
         {"out_ptr": BF16, "a_scale_ptr": FLOAT, "b_scale_ptr": BF16}),
)  # fmt: skip


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kernel}{'-rest' if case.constants.get('REST') else ''}"
)
def test_kernels_compile_for_hopper(case: Case) -> None:
    compiled = _compile(case, 90)
    assert ".target sm_90" in compiled.asm["ptx"]
    # 227 KiB is what a block may have; what is over is an error only at the launch.
    assert compiled.metadata.shared <= 227 * 1024


def _compile(case: Case, capability: int) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    kernel = getattr(importlib.import_module(f"fluxkit.sampling.{case.module}"), case.kernel)
    types = {name: _type(name, case) for name in kernel.arg_names}
    constants = {(kernel.arg_names.index(name),): value for name, value in case.constants.items()}
    aligned = {(number,): [["tt.divisibility", 16]] for number, one in enumerate(types.values()) if one.startswith("*")}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": case.warps})


def _type(name: str, case: Case) -> str:
    if name in case.constants:
        return "constexpr"
    if name in case.others:
        return case.others[name]
    if name.endswith("_ptr"):
        return POINTERS.get(name, FLOAT)
    return NUMBERS.get(name, "i32")
