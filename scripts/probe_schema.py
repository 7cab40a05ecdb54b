"""Regenerate an option schema: what one SimpleTuner release accepts, as data.

In the environment of a packaged release:      <env>/bin/python scripts/probe_schema.py 4.8.0
For a checkout of an old one, without its 6 GB: python scripts/probe_schema.py 1.2.5 --checkout <folder>

The second way replaces the heavy libraries with stubs and asks twice, with and without a visible GPU: choices that
exist only with one are listed in `cuda_choices` too.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
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
    def __init__(self, *, cuda: bool) -> None:
        self._cuda = cuda

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:  # noqa: ARG002
        if fullname.split(".")[0] in STUBBED or fullname.startswith(STUBBED_PARTS):
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


def _ask_checkout(checkout: Path, *, cuda: bool) -> dict[str, dict[str, object]]:
    for name in [name for name in sys.modules if name.split(".")[0] in STUBBED | {"helpers"}]:
        del sys.modules[name]
    finder = _Stubs(cuda=cuda)
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(checkout))
    try:
        probe = _probe()
        return probe.describe(probe.find_parser())
    finally:
        sys.meta_path.remove(finder)
        sys.path.remove(str(checkout))


def options_of(checkout: Path | None) -> dict[str, dict[str, object]]:
    """The options of the release in this environment, or of a checkout."""
    if checkout is None:
        probe = _probe()
        return probe.describe(probe.find_parser())
    options = _ask_checkout(checkout, cuda=True)
    without = _ask_checkout(checkout, cuda=False)
    for name, option in options.items():
        only = [choice for choice in option.get("choices", []) if choice not in without[name].get("choices", [])]
        if only:
            option["cuda_choices"] = only
    return options


def main() -> None:
    """Write the schema beside the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("release")
    parser.add_argument("--checkout", type=Path)
    arguments = parser.parse_args()
    options = options_of(arguments.checkout.resolve() if arguments.checkout else None)
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(option)}" for name, option in options.items())
    text = f'{{"release": {json.dumps(arguments.release)}, "options": {{\n{rows}\n}}}}\n'
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    (SCHEMAS / f"{arguments.release}.json").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{arguments.release}: {len(options)} options\n")


if __name__ == "__main__":
    main()
