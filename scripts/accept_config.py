"""Ask a release itself whether it takes a rendered config: its own loader, parser and data-backend checks.

<env>/bin/python scripts/accept_config.py <folder with config/config.json>...

Run by the trainer's interpreter, in its environment; prints a JSON line after the mark for each folder: the backends
taken, and the options as understood. Nothing is trained, no photo is read. A GPU is pretended where there is none: some
choices (nf4-bnb up to 4.5) exist only with one.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

MARK = "fluxkit-accepts:"


def _pretend_gpu() -> None:
    path = Path(__file__).resolve().parent / "probe_schema.py"
    spec = importlib.util.spec_from_file_location("probe_schema", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.pretend_gpu()


def _check_backend(backend: dict[str, Any], arguments: Any, accelerator: Any) -> str:
    """Run a backend through the release's own checks, in the order of its factory."""
    from simpletuner.helpers.data_backend import factory

    registry = getattr(factory, "FactoryRegistry", None)
    if backend.get("dataset_type", "image") == "image":
        if registry is not None:
            stand_in = registry.__new__(registry)
            stand_in.args = arguments
            stand_in._handle_resolution_conversion(backend)
        else:
            # 2.x does it inside a function that needs the models: edges in pixels become megapixels.
            backend["resolution_type"] = "area"
            edges = ("resolution", "minimum_image_size", "maximum_image_size", "target_downsample_size")
            backend |= {edge: backend[edge] ** 2 / 1e6 for edge in edges if edge in backend}
    if hasattr(factory, "create_backend_config"):
        factory.create_backend_config(backend, vars(arguments)).validate(vars(arguments))
    taken: str = factory.init_backend_config(backend, arguments, accelerator)["id"]
    return taken


def accept(folder: Path) -> dict[str, Any]:
    """Load, parse and check one folder's config.

    Raises:
        SystemExit: the release refuses it, in its own words.
    """
    import torch
    from simpletuner.helpers.configuration.loader import load_config
    from simpletuner.helpers.training.state_tracker import StateTracker

    os.chdir(folder)
    arguments = load_config(exit_on_error=True)
    if arguments is None:
        sys.exit("the release's loader returned nothing")
    accelerator = MagicMock(is_main_process=True, is_local_main_process=True, device=torch.device("cpu"))
    StateTracker.set_args(arguments)
    StateTracker.set_accelerator(accelerator)
    backends = json.loads(Path(arguments.data_backend_config).read_text(encoding="utf-8"))
    taken = [_check_backend(backend, arguments, accelerator) for backend in backends]
    plain = {k: v for k, v in vars(arguments).items() if isinstance(v, (str, int, float, bool, type(None)))}
    return {"backends": taken, "understood": plain}


def main() -> None:
    """Ask for every folder on the command line."""
    folders = [Path(name).resolve() for name in sys.argv[1:]]
    os.environ.update({"ENV": "default", "CONFIG_BACKEND": "json", "HF_HUB_OFFLINE": "1"})
    sys.argv = ["train.py"]
    import torch

    if not torch.cuda.is_available():
        _pretend_gpu()
    for folder in folders:
        sys.stdout.write(f"\n{MARK}{json.dumps(accept(folder))}\n")


if __name__ == "__main__":
    main()
