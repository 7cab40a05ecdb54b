"""Regenerate an option schema: what one SimpleTuner release accepts, as data.

In the environment of a packaged release: <env>/bin/python scripts/probe_schema.py 4.8.0
A checkout of an old one, without its 6 GB: python scripts/probe_schema.py 1.2.5 --checkout <folder>
With the libraries of an environment: <env>/bin/python scripts/probe_schema.py 2.1.3 --checkout <folder> --real
With --check, nothing is written: 1 when the schema that is there differs.

The second way replaces the heavy libraries by stubs. All ask twice, with and without a GPU (pretended, bitsandbytes
too): choices that exist only with one are listed in `cuda_choices` as well.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "third_party" / "simpletuner" / "schemas"
STUBBED = (
    "torch",
    "accelerate",
    "optimum",
    "torchao",
    "optimi",
    "bitsandbytes",
    "prodigyplus",
    "transformers",
    "diffusers",
)
STUBBED_PARTS = (
    "helpers.training.optimizers",
    "helpers.models.smoldit.transformer",
    "helpers.models.smoldit.pipeline",
)  # fmt: skip


def _probe() -> ModuleType:
    # By path: the trainer's environment has no fluxkit.
    spec = importlib.util.spec_from_file_location("probe", ROOT / "fluxkit" / "trainer" / "probe.py")
    if spec is None or spec.loader is None:
        raise ImportError("fluxkit/trainer/probe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Stub(ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class _Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, stubbed: tuple[str, ...], parts: tuple[str, ...] = (), *, cuda: bool) -> None:
        self._stubbed = stubbed
        self._parts = parts
        self._cuda = cuda

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:  # noqa: ARG002
        if fullname.split(".")[0] in self._stubbed or fullname.startswith(self._parts):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _Stub(spec.name)
        if spec.name == "torch":
            module.cuda = MagicMock()
            module.cuda.is_available.return_value = self._cuda
            module.cuda.get_device_properties.return_value.major = 9  # Hopper: the release asks for it
            module.backends = MagicMock()
            module.backends.mps.is_available.return_value = False
        if spec.name == "bitsandbytes":
            module.optim = MagicMock(AdEMAMix=object)  # looked for with dir()
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def pretend_gpu() -> None:
    """Make the real torch say that there is a Hopper GPU, and bitsandbytes importable, which only comes with one."""
    import torch

    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_name = lambda *_: "pretended"
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.cuda.get_device_properties = lambda *_: MagicMock(major=9, minor=0)
    if importlib.util.find_spec("bitsandbytes") is None:
        sys.meta_path.insert(0, _Stubs(("bitsandbytes",), cuda=True))


def answer(arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The options that the parser in this process has."""
    probe = _probe()
    if arguments.checkout:
        sys.path.insert(0, str(arguments.checkout))
    if arguments.checkout and not arguments.real:
        sys.meta_path.insert(0, _Stubs(STUBBED, STUBBED_PARTS, cuda=arguments.answer == "cuda"))
    elif arguments.answer == "cuda":
        pretend_gpu()
    if arguments.checkout and (arguments.checkout / "helpers").is_dir():
        probe.PARSERS = probe.PARSERS[-1:]  # the environment's own SimpleTuner is not meant
    options: dict[str, dict[str, object]] = probe.describe(probe.find_parser())
    return options


def _ask(arguments: argparse.Namespace, how: str) -> dict[str, dict[str, object]]:
    """`answer`, in a process of its own."""
    mark = _probe().MARK
    command = [sys.executable, __file__, "-", "--answer", how, *(["--real"] if arguments.real else [])]
    command += ["--checkout", str(arguments.checkout)] if arguments.checkout else []
    # A fixed hash seed: some choices come out of a set. In a folder of its own: the trainer writes debug.log there.
    env = {**os.environ, "PYTHONHASHSEED": "0", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE, text=True)
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(mark))
    options: dict[str, dict[str, object]] = json.loads(line[len(mark) :])
    return options


def options_of(arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The options of the release in this environment, or of a checkout."""
    options = _ask(arguments, "plain")
    for name, with_cuda in _ask(arguments, "cuda").items():
        option = options[name]
        plain = option.get("choices", [])
        only = [choice for choice in with_cuda.get("choices", []) if choice not in plain] if plain else []
        if only:
            option["choices"], option["cuda_choices"] = plain + only, only
    return options


def schema_text(release: str, options: dict[str, dict[str, object]]) -> str:
    """The schema's file, an option a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(option)}" for name, option in options.items())
    return f'{{"release": {json.dumps(release)}, "options": {{\n{rows}\n}}}}\n'


def main() -> int:
    """Write the schema beside the others, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release")
    parser.add_argument("--checkout", type=lambda path: Path(path).resolve())
    parser.add_argument("--real", action="store_true", help="no stubs for a checkout")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--answer", choices=("plain", "cuda"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        sys.stdout.write(f"\n{_probe().MARK}{json.dumps(answer(arguments))}\n")
        return 0
    path, text = SCHEMAS / f"{arguments.release}.json", schema_text(arguments.release, options_of(arguments))
    if arguments.check:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{arguments.release}: {'as probed' if same else 'differs from what the release says'}\n")
        return 0 if same else 1
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{arguments.release}: written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
