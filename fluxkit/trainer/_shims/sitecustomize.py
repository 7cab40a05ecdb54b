"""Loads fluxkit's shims into the trainer's process. Never imported by fluxkit itself.

Python imports `sitecustomize` at the start of every process that has this folder on its PYTHONPATH. `FLUXKIT_SHIMS`
names the shims; each patches one library right after that library was imported, so that processes that never import
it lose nothing. A `sitecustomize` further down the path is run too.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # no pathlib in every process


class _PatchAfterImport(importlib.abc.MetaPathFinder):
    """Lets the other finders find the module, then wraps its loader."""

    def __init__(self, shims: dict[str, list[ModuleType]]) -> None:
        self._shims = shims

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> importlib.machinery.ModuleSpec | None:
        # Not taken out here: who only asks whether a module is there (transformers asks for bitsandbytes) finds it too.
        waiting = self._shims.get(fullname)
        if waiting is None:
            return None
        others: list[Any] = [finder for finder in sys.meta_path if finder != self]
        for finder in others:
            spec: importlib.machinery.ModuleSpec | None = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _PatchingLoader(spec.loader, waiting)
                return spec
        return None


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, shims: list[ModuleType]) -> None:
        self._loader = loader
        self._shims = shims

    def __getattr__(self, name: str) -> object:
        # get_resource_reader, get_data …: the module's own loader answers.
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        for shim in self._shims:
            shim.apply(module)


def _install() -> None:
    waiting: dict[str, list[ModuleType]] = {}
    for name in filter(None, os.environ.get("FLUXKIT_SHIMS", "").split(",")):
        shim = importlib.import_module(f"fluxkit_shim_{name}")
        for module in shim.MODULES:
            waiting.setdefault(module, []).append(shim)
    if waiting:
        sys.meta_path.insert(0, _PatchAfterImport(waiting))


def _chain() -> None:
    """Run the next sitecustomize on the path, which this one hides."""
    rest = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]  # noqa: PTH100
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_install()
_chain()
