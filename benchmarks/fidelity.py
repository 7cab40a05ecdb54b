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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.fidelity_network import SIZES, Network, Size, backward, forward, make_inputs, run_block
from benchmarks.quantizing import PRECISIONS
from fluxkit.rendering.fidelity import keeps_bounds

REPORT = Path(__file__).resolve().parents[1] / "docs" / "profiles.md"
BEGIN, END = "<!-- fidelity: begin -->", "<!-- fidelity: end -->"


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
        return keeps_bounds(self.bits, self.block_error, self.gradient_cosine)


def compare(size: Size, precision: str, device: str, *, edge: int, text: int) -> Fidelity:
    """Measure one precision.

    Raises:
        Exception: whatever its library raises where it is missing or can't do it on this device.
    """
    how = PRECISIONS[precision]
    started = time.monotonic()
    inputs = make_inputs(size, device, edge, text)
    exact, rough = Network(size, device), Network(size, device, how.quantize, compiled=how.compiled)
    truth, chained = forward(exact, inputs), forward(rough, inputs)
    errors = []
    with torch.no_grad():
        for index in range(len(rough)):
            after = run_block(rough, rough.block(index), truth[index], inputs)
            errors.append(_distance(after, truth[index + 1], truth[index]))
    pairs = zip(backward(exact, inputs, truth), backward(rough, inputs, chained), strict=True)
    sums = [(float(a @ b), float(a @ a), float(b @ b)) for a, b in pairs]
    both, left, right = (sum(column) for column in zip(*sums, strict=True))
    return Fidelity(
        precision,
        how.bits,
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
