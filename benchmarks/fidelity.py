"""How exact a quantized FLUX is: forward error and adapter-gradient cosine against bf16, on the same inputs.

    python benchmarks/fidelity.py                                   # full size, on a GPU
    python benchmarks/fidelity.py --size tiny --precision int8-quanto
    python benchmarks/fidelity.py --results FILE --jobs 4           # four at once, each a line of FILE as it is done
    python benchmarks/fidelity.py --from FILE --report              # the table of FILE, into docs/profiles.md

Run it with the Python of the trainer's environment, which has the quantizers that the trainer uses. One block of random
weights is on the device at a time, drawn again from its seed whenever it is needed, so that the depth of 57 blocks
costs no memory. The backward pass goes through all of them the same way. Loss on random weights says nothing; these do:

- block error: a block's output, quantized, from the bf16 run's own inputs; its distance relative to what the block adds
  to its input; the worst block counts.
- forward error: the last block's output after quantized blocks alone, relative to bf16's.
- gradient cosine: of all LoKr gradients together, and of the worst block, for the same gradient at the end.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch.nn.attention import SDPBackend, sdpa_kernel

REPORT = Path(__file__).resolve().parents[1] / "docs" / "profiles.md"
BEGIN, END = "<!-- fidelity: begin -->", "<!-- fidelity: end -->"
# The largest block error and the smallest cosine of a profile, set before the full size was measured: with weights of
# 8 bits, and of fewer for cards that hold no more.
BOUNDS = {8: (0.08, 0.99), 4: (0.25, 0.95)}
# Without cuDNN's, whose backward pass failed here on an H200 with torch 2.11 ("mha_graph.execute … is_good()").
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_STD = 0.02  # of the full size's weights, as benchmarks/full_flux.py draws them


@dataclass(frozen=True)
class Size:
    """A FLUX transformer's measures."""

    double: int
    single: int
    heads: int
    head: int
    axes: tuple[int, int, int]
    factors: tuple[int, int]  # of the LoKr in Attention and FeedForward

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.heads * self.head

    @property
    def std(self) -> float:
        """Of the weights: a narrow block adds as much to its input as a wide one, or rounding is all that is seen."""
        return _STD * (3072 / self.width) ** 0.5


SIZES = {
    "full": Size(19, 38, 24, 128, (16, 56, 56), (16, 8)),
    "tiny": Size(2, 2, 4, 16, (4, 6, 6), (4, 2)),
}


@dataclass(frozen=True)
class Fidelity:
    """How far a precision is from bf16; see the module's text."""

    precision: str
    bits: int
    block_error: float
    forward_error: float
    gradient_cosine: float
    worst_cosine: float
    seconds: float

    @property
    def within(self) -> bool:
        """Whether it keeps the bounds of its bits."""
        error, cosine = BOUNDS[8 if self.bits >= 8 else 4]
        return self.block_error <= error and self.gradient_cosine >= cosine


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


def _sdnq(block: torch.nn.Module, weights: str, *, matmul: bool = False) -> None:
    from sdnq.training import sdnq_training_post_load_quant

    sdnq_training_post_load_quant(
        block, weights_dtype=weights, group_size=32, use_quantized_matmul=matmul, use_static_quantization=True
    )


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


# Name → bits of a weight, and what makes a block's linears so, in place.
PRECISIONS: dict[str, tuple[int, Callable[[torch.nn.Module], None]]] = {
    # What the profiles are made of comes first.
    "int8-quanto": (8, lambda block: _quanto(block, "qint8")),
    "nf4-bnb": (4, _nf4),
    "fp8-quanto": (8, lambda block: _quanto(block, "qfloat8_e4m3fn")),
    "int8-torchao": (8, _torchao_int8),
    "fp8-torchao": (8, lambda block: _torchao(block, lambda api: api.Float8DynamicActivationFloat8WeightConfig())),
    "fp8wo-torchao": (8, lambda block: _torchao(block, lambda api: api.Float8WeightOnlyConfig())),
    "int8-sdnq": (8, lambda block: _sdnq(block, "int8")),
    "int8-sdnq-matmul": (8, lambda block: _sdnq(block, "int8", matmul=True)),
    "int6-sdnq": (6, lambda block: _sdnq(block, "int6")),
    "int5-sdnq": (5, lambda block: _sdnq(block, "int5")),
    "uint4-sdnq": (4, lambda block: _sdnq(block, "uint4")),
    "int4-quanto": (4, lambda block: _quanto(block, "qint4")),
}


class _Adapted(torch.nn.Module):
    """A frozen linear and a LoKr beside it, as LyCORIS's bypass mode computes it."""

    def __init__(self, base: torch.nn.Module, rows: int, columns: int, factor: int) -> None:
        super().__init__()
        self.base = base
        self.first = torch.nn.Parameter(torch.randn(factor, factor) * _STD)
        self.second = torch.nn.Parameter(torch.randn(rows // factor, columns // factor) * _STD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        delta = torch.kron(self.first, self.second).to(x.dtype)
        return self.base(x).to(torch.bfloat16) + torch.nn.functional.linear(x, delta).to(torch.bfloat16)


class Network:
    """The blocks, made one at a time from their seeds; two networks of one size differ in their precision alone."""

    def __init__(self, size: Size, device: str, quantize: Callable[[torch.nn.Module], None] | None) -> None:
        self.size = size
        self.device = device
        self.quantize = quantize

    def __len__(self) -> int:
        return self.size.double + self.size.single

    def block(self, index: int) -> torch.nn.Module:
        """The block with its adapters; the same values each time."""
        size = self.size
        kind = FluxTransformerBlock if index < size.double else FluxSingleTransformerBlock
        torch.manual_seed(1000 + index)
        with torch.device(self.device):
            block = kind(dim=size.width, num_attention_heads=size.heads, attention_head_dim=size.head)
            for parameter in block.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=size.std)
        block = block.to(torch.bfloat16).requires_grad_(False)
        linears = {name: module for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
        shapes = {
            name: (module.out_features, module.in_features)
            for name, module in linears.items()
            if name.startswith(("attn.", "ff"))
        }
        if self.quantize:
            self.quantize(block)
            block.requires_grad_(False)
        torch.manual_seed(2000 + index)
        with torch.device(self.device):
            for name, (rows, columns) in shapes.items():
                factor = size.factors[not name.startswith("attn.")]
                block.set_submodule(name, _Adapted(block.get_submodule(name), rows, columns, factor))
        return block


@dataclass
class Inputs:
    """What enters: the picture's and the text's tokens, the conditioning, the positions, the gradient at the end."""

    picture: torch.Tensor
    text: torch.Tensor
    condition: torch.Tensor
    positions: Any
    gradient: tuple[torch.Tensor, torch.Tensor]


def make_inputs(size: Size, device: str, edge: int, text: int) -> Inputs:
    """Random inputs of a square picture's size, the same for every precision."""
    torch.manual_seed(7)
    side = edge // 16

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(torch.bfloat16)

    ids = torch.zeros(text + side * side, 3, device=device)
    ids[text:, 1] = torch.arange(side, device=device).repeat_interleave(side)
    ids[text:, 2] = torch.arange(side, device=device).repeat(side)
    picture, caption = (1, side * side, size.width), (1, text, size.width)
    return Inputs(
        draw(*picture),
        draw(*caption),
        draw(1, size.width),
        FluxPosEmbed(theta=10000, axes_dim=list(size.axes))(ids),
        (draw(*caption), draw(*picture)),
    )


def forward(network: Network, inputs: Inputs) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The text and the picture before each block, and after the last."""
    states = [(inputs.text, inputs.picture)]
    with torch.no_grad():
        for index in range(len(network)):
            states.append(_run(network, network.block(index), states[-1], inputs))
    return states


def backward(
    network: Network, inputs: Inputs, states: list[tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[torch.Tensor]:
    """The adapters' gradients, block by block from the last, for the inputs' gradient at the end."""
    gradient = inputs.gradient
    for index in reversed(range(len(network))):
        block = network.block(index)
        before = tuple(state.detach().requires_grad_() for state in states[index])
        after = _run(network, block, before, inputs)
        torch.autograd.backward(after, gradient)
        gradient = tuple(state.grad if state.grad is not None else torch.zeros_like(state) for state in before)
        yield torch.cat(
            [p.grad.flatten().float() for p in block.parameters() if p.requires_grad and p.grad is not None]
        )


def _run(network: Network, block: torch.nn.Module, state: Any, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    with sdpa_kernel(_ATTENTION), torch.autocast(network.device, dtype=torch.bfloat16):
        text, picture = block(
            hidden_states=state[1],
            encoder_hidden_states=state[0],
            temb=inputs.condition,
            image_rotary_emb=inputs.positions,
        )
    return text.to(torch.bfloat16), picture.to(torch.bfloat16)


def compare(size: Size, precision: str, device: str, *, edge: int, text: int) -> Fidelity:
    """Measure one precision.

    Raises:
        Exception: whatever its library raises where it is missing or can't do it on this device.
    """
    bits, quantize = PRECISIONS[precision]
    started = time.monotonic()
    inputs = make_inputs(size, device, edge, text)
    exact, rough = Network(size, device, None), Network(size, device, quantize)
    truth, chained = forward(exact, inputs), forward(rough, inputs)
    errors = []
    with torch.no_grad():
        for index in range(len(rough)):
            after = _run(rough, rough.block(index), truth[index], inputs)
            errors.append(_distance(after, truth[index + 1], truth[index]))
    pairs = zip(backward(exact, inputs, truth), backward(rough, inputs, chained), strict=True)
    sums = [(float(a @ b), float(a @ a), float(b @ b)) for a, b in pairs]
    both, left, right = (sum(column) for column in zip(*sums, strict=True))
    return Fidelity(
        precision,
        bits,
        block_error=max(errors),
        forward_error=_distance(chained[-1][1:], truth[-1][1:]),
        gradient_cosine=both / (left * right) ** 0.5,
        worst_cosine=min(a / (b * c) ** 0.5 for a, b, c in sums),
        seconds=round(time.monotonic() - started, 1),
    )


def _distance(one: Any, other: Any, origin: Any = None) -> float:
    """Of two states, relative to the second's size, or to its distance from `origin`."""
    origin = origin if origin is not None else [torch.zeros_like(each) for each in other]
    apart = sum(float((a.float() - b.float()).square().sum()) for a, b in zip(one, other, strict=True))
    size = sum(float((b.float() - c.float()).square().sum()) for b, c in zip(other, origin, strict=True))
    return float((apart / size) ** 0.5)


def table(results: list[Fidelity], where: str) -> str:
    """The results in Markdown."""
    head = "| precision | block error | forward error | gradient cosine | worst block's | within its bounds |"
    rows = [
        f"| {one.precision} | {one.block_error:.4f} | {one.forward_error:.4f} | {one.gradient_cosine:.5f} "
        f"| {one.worst_cosine:.5f} | {'yes' if one.within else 'no'} |"
        for one in results
    ]
    return "\n".join([where, "", head, "|---|---|---|---|---|---|", *rows])


def _measured(precision: str, size: Size, arguments: argparse.Namespace) -> Fidelity | None:
    try:
        return compare(size, precision, arguments.device, edge=arguments.edge, text=arguments.text)
    except Exception as error:  # a library that is missing, or can't do this here, is a result too
        print(f"{precision}: not measured: {type(error).__name__}: {error}", file=sys.stderr)
        traceback.print_exc()
        return None


def _alone(precision: str) -> Fidelity | None:
    """In a process of its own: after an error of CUDA's nothing more can be measured in the same one."""
    argv = [sys.executable, __file__, *sys.argv[1:], f"--only={precision}", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return Fidelity(**json.loads(lines[-1])) if lines else None


def _all(wanted: list[str], size: Size, arguments: argparse.Namespace) -> Iterator[Fidelity]:
    """The results as they come: nothing of it is timed, so several may share the device."""
    if len(wanted) == 1:
        one = _measured(wanted[0], size, arguments)
        yield from [one] if one else []
        return
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done in as_completed([pool.submit(_alone, precision) for precision in wanted]):
            if (one := done.result()) is not None:
                yield one


def read_results(path: Path) -> tuple[list[Fidelity], str]:
    """What a file of results holds, in the precisions' order, the newest of each; and where it was measured."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not lines:
        sys.exit(f"{path} holds no result.")
    where = lines[-1]["where"]
    found = {line["precision"]: line for line in lines if line["where"] == where}
    fields = [{key: value for key, value in line.items() if key != "where"} for line in found.values()]
    return sorted((Fidelity(**each) for each in fields), key=lambda one: list(PRECISIONS).index(one.precision)), where


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="may be repeated [default: all]")
    parser.add_argument("--only", choices=PRECISIONS, help=argparse.SUPPRESS)
    parser.add_argument("--edge", type=int, default=512, help="of the picture, in pixels")
    parser.add_argument("--text", type=int, default=512, help="the caption's tokens")
    parser.add_argument("--blocks", metavar="DOUBLE,SINGLE", help="fewer blocks than the size has")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once, each in a process of its own")
    parser.add_argument("--results", type=Path, metavar="FILE", help="each result is a line of it, as it comes")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing, take its results")
    parser.add_argument("--report", action="store_true", help="write the table into docs/profiles.md")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    if arguments.blocks:
        double, single = (int(number) for number in arguments.blocks.split(","))
        size = Size(double, single, size.heads, size.head, size.axes, size.factors)
    wanted = [arguments.only] if arguments.only else arguments.precision or list(PRECISIONS)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    blocks = f"{size.double} double and {size.single} single blocks of width {size.width}"
    where = f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}; {blocks}, a picture of {arguments.edge}."
    results = []
    if arguments.source:
        results, where = read_results(arguments.source)
    for one in () if arguments.source else _all(wanted, size, arguments):
        results.append(one)
        print(json.dumps(asdict(one)) if arguments.json else one, flush=True)
        if arguments.results and not arguments.only:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**asdict(one), "where": where}) + "\n")
    text = table(results, where)
    if not arguments.json:
        print(text)
    if arguments.report and not arguments.only:
        before, _, rest = REPORT.read_text(encoding="utf-8").partition(BEGIN)
        REPORT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
