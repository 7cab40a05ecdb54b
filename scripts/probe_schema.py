"""Regenerate an option schema: what one SimpleTuner release accepts, as data.

In the environment of a packaged release:      <env>/bin/python scripts/probe_schema.py 4.8.0
For a checkout of an old one, without its 6 GB: python scripts/probe_schema.py 1.2.5 --checkout <folder>
With --check, nothing is written: 1 when the schema that is there differs.

Both ask a second time with the heavy libraries replaced by stubs and a GPU pretended: choices that exist only with one
are listed in `cuda_choices` too.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
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
    "torchvision",
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
    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:  # noqa: ARG002
        if fullname.split(".")[0] in STUBBED or fullname.removeprefix("simpletuner.").startswith(STUBBED_PARTS):
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


def answer(how: str, checkout: Path | None) -> dict[str, dict[str, object]]:
    """The options that the parser in this process has.

    Args:
        how: `real`, or `no-cuda` and `cuda` with stubs.
        checkout: where the release is, if not installed.
    """
    if checkout is not None:
        sys.path.insert(0, str(checkout))
    if how != "real":
        sys.meta_path.insert(0, _Stubs(cuda=how == "cuda"))
    probe = _probe()
    options: dict[str, dict[str, object]] = probe.describe(probe.find_parser())
    return options


def _ask(how: str, checkout: Path | None) -> dict[str, dict[str, object]]:
    """`answer`, in a process of its own."""
    mark = _probe().MARK
    command = [sys.executable, __file__, "-", "--answer", how, *(["--checkout", str(checkout)] if checkout else [])]
    # In a folder of its own: the trainer writes debug.log where it is started.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(mark))
    options: dict[str, dict[str, object]] = json.loads(line[len(mark) :])
    return options


def options_of(checkout: Path | None) -> dict[str, dict[str, object]]:
    """The options of the release in this environment, or of a checkout."""
    options = _ask("no-cuda" if checkout else "real", checkout)
    for name, with_cuda in _ask("cuda", checkout).items():
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
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--answer", choices=("real", "no-cuda", "cuda"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    checkout = arguments.checkout.resolve() if arguments.checkout else None
    if arguments.answer:
        sys.stdout.write(f"\n{_probe().MARK}{json.dumps(answer(arguments.answer, checkout))}\n")
        return 0
    options = options_of(checkout)
    path, text = SCHEMAS / f"{arguments.release}.json", schema_text(arguments.release, options)
    if arguments.check:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        sys.stdout.write(f"{arguments.release}: {'as probed' if same else 'differs from what the release says'}\n")
        return 0 if same else 1
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{arguments.release}: {len(options)} options\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
