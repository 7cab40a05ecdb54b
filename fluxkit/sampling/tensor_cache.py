"""Tensors kept on disk between runs: whole files or none, the least used thrown away first, damaged ones made anew.

What is kept: encoded prompts (4 MB each) and quantized transformers (9 to 24 GB), in the user's cache folder.
`FLUXKIT_SAMPLING_CACHE_GB` sets how much may be kept (40 by default, 0 keeps nothing).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.errors import UserError
from fluxkit.files import atomic_path, cache_dir, sha256_file
from fluxkit.hub import local_file

if TYPE_CHECKING:
    import torch

    from fluxkit.sampling.reading import TensorFile

LIMIT_VARIABLE = "FLUXKIT_SAMPLING_CACHE_GB"
_DEFAULT_LIMIT_GB = 40.0
_FORMAT = "1"


@dataclass(frozen=True)
class TensorCache:
    """A folder of safetensors files, named by the hash of what decides their contents.

    Args:
        folder: where they are.
        limit_bytes: what they may take together; 0 for no cache.
    """

    folder: Path
    limit_bytes: int

    def load(self, facts: Mapping[str, Any]) -> "tuple[dict[str, torch.Tensor], dict[str, str]] | None":
        """What was kept under these facts, on the CPU, with its metadata; None where there is nothing whole."""
        from fluxkit.sampling.reading import read_tensors

        file = self.open(facts)
        if file is None:
            return None
        try:
            return read_tensors(file, lambda _name: "cpu"), dict(file.metadata)
        except OSError:
            self.drop(facts)
            return None

    def open(self, facts: Mapping[str, Any]) -> "TensorFile | None":
        """What was kept under these facts, of which only the header is read yet; None where there is nothing whole."""
        from fluxkit.sampling.reading import open_tensors

        path = self._path(facts)
        if self.limit_bytes <= 0 or not path.is_file():
            return None
        try:
            file = open_tensors(path)
            if file.metadata.get("key") != path.stem or not file.entries:
                raise ValueError("another entry's contents")
        except (OSError, ValueError):
            self.drop(facts)
            return None
        with suppress(OSError):
            os.utime(path)
        return file

    def drop(self, facts: Mapping[str, Any]) -> None:
        """Throw away what was kept under these facts."""
        with suppress(OSError):
            self._path(facts).unlink()

    def find(self, facts: Mapping[str, Any]) -> Path | None:
        """The file of these facts, whole or not; None where there is none."""
        path = self._path(facts)
        return path if self.limit_bytes > 0 and path.is_file() else None

    def store(self, facts: Mapping[str, Any], tensors: "Mapping[str, torch.Tensor]", **metadata: str) -> bool:
        """Keep tensors, throwing away what was used longest ago; a disk that is full is no error.

        Returns:
            Whether they are kept.
        """
        from safetensors.torch import save_file

        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if size > self.limit_bytes:
            return False
        path = self._path(facts)
        try:
            self._make_room(size)
            with atomic_path(path) as temporary:
                save_file(
                    {key: tensor.detach().contiguous().cpu() for key, tensor in tensors.items()},
                    temporary,
                    metadata={**metadata, "key": path.stem},
                )
        except (UserError, OSError):  # the pictures matter, not the cache
            return False
        return True

    def _make_room(self, size: int) -> None:
        entries = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        kept = sum(path.stat().st_size for path in entries)
        for path in entries:
            if kept + size <= self.limit_bytes:
                break
            kept -= path.stat().st_size
            path.unlink(missing_ok=True)

    def _path(self, facts: Mapping[str, Any]) -> Path:
        text = json.dumps({**facts, "cache": _FORMAT}, sort_keys=True, ensure_ascii=True, default=str)
        return self.folder / f"{hashlib.sha256(text.encode('ascii')).hexdigest()}.safetensors"


def sampling_cache(kind: str) -> TensorCache:
    """The cache of that kind (`prompts`, `transformers`), as large as the user's setting allows.

    Raises:
        UserError: the setting is no number.
    """
    text = os.environ.get(LIMIT_VARIABLE, str(_DEFAULT_LIMIT_GB))
    try:
        limit = float(text)
    except ValueError as error:
        raise UserError(f"{LIMIT_VARIABLE}={text} is no number.", fix=f"For example: {LIMIT_VARIABLE}=60") from error
    return TensorCache(cache_dir() / "sampling" / kind, int(limit * 1e9))


def component_facts(base: str, revision: str | None, component: str) -> dict[str, Any] | None:
    """What a part of the base model is, without reading its weights; None where it is not on this machine yet.

    A file of the Hub's cache is a link to a blob named by its hash; a local file is known by size and time.
    """
    config = local_file(base, f"{component}/config.json", revision)
    if config is None:
        return None
    files = {}
    for path in sorted(Path(config).parent.iterdir()):
        target = path.resolve()
        blob = target.name if target.parent.name == "blobs" else None
        stat = target.stat()
        files[path.name] = blob or [str(target), stat.st_size, stat.st_mtime_ns]
    return {"files": files}


def digest(path: Path) -> str:
    """The SHA-256 of a file, counted once while it stays as it is.

    Raises:
        OSError: it can't be read.
    """
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@cache
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_file(path)


def library_versions(*names: str) -> dict[str, str]:
    """Versions of what computes the tensors."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
