"""Whether an environment is still what was installed, by the list of files that each package brings (its RECORD).

The marker holds the hash of each RECORD, and a RECORD holds size and hash of each file. A look at every file's size
and time takes 0.3 s for the 40,000 files of SimpleTuner 4.8.0 (2 cores, warm; 2026-11-24); a file that was written
after the marker is read and hashed. `deep` reads and hashes all 6 GB.
"""

import base64
import csv
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fluxkit.process import run
from fluxkit.trainer.cached import MARKER, OPTIONS, python_of, read_marker

# Certificates that a company's administrator adds to are no damage.
_LEFT_TO_THE_USER = frozenset({"certifi/cacert.pem"})
_ASK = "import sys; print(sys.prefix)"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was installed.

    Args:
        what: for people, e.g. `torch/version.py is missing`.
        package: the distribution it belongs to; empty for the environment's own files.
        shared: whether uv's cache holds the same bytes under another name (a hard link), and so is altered too.
    """

    what: str
    package: str = ""
    shared: bool = False


@dataclass(frozen=True)
class _Entry:
    package: str
    path: str  # relative to site-packages, as RECORD writes it
    sha256: str
    size: int


def find_damage(root: Path, *, deep: bool = False, files: bool = True) -> list[Damage]:
    """What is missing or altered in a finished environment; empty when it is whole.

    Args:
        root: the environment's folder; it holds a marker.
        deep: hash every file, not only those that changed since the marker was written.
        files: look at the packages' files at all; without, at the interpreter and the folder alone.
    """
    marker = read_marker(root)
    found = list(_foundations(root, marker))
    site = site_packages(root)
    if site is None:
        return [*found, Damage("its folder of packages is missing")]
    if not files:
        return found
    entries: list[_Entry] = []
    # An environment made by fluxkit 0.1 has no list: what is there must answer for itself.
    for folder, digest in (marker.get("packages") or dict.fromkeys(_dist_infos(site), "")).items():
        record = _read(site / folder / "RECORD")
        name = folder.split("-")[0]
        if not record or (digest and hashlib.sha256(record).hexdigest() != digest):
            found.append(Damage(f"the file list of {name} is {'altered' if record else 'missing'}", name))
        else:
            entries += _entries(name, record)
    known = _LEFT_TO_THE_USER | set(marker.get("deviating") or ())
    return found + _altered(site, [entry for entry in entries if entry.path not in known], _since(root, deep))


def record_packages(root: Path) -> dict[str, object]:
    """What the marker keeps for `find_damage`: each package's RECORD, and files that differ from it from the start.

    A wheel whose RECORD is wrong must not make an environment that is never whole.
    """
    site = site_packages(root)
    if site is None:
        return {}
    records = {folder: _read(site / folder / "RECORD") for folder in _dist_infos(site)}
    entries = [entry for folder, record in records.items() for entry in _entries(folder, record)]
    deviating = [entry.path for entry in entries if _size_differs(site, entry)]
    packages = {folder: hashlib.sha256(record).hexdigest() for folder, record in records.items() if record}
    return {"packages": packages, "deviating": sorted(deviating)}


def recorded_bytes(root: Path) -> int:
    """Size of an environment's packages by their own lists, in bytes; no file is looked at."""
    site = site_packages(root)
    if site is None:
        return 0
    return sum(entry.size for name in _dist_infos(site) for entry in _entries(name, _read(site / name / "RECORD")))


def site_packages(root: Path) -> Path | None:
    """The folder of an environment's packages."""
    return next((path for path in sorted((root / "lib").glob("python3*/site-packages")) if path.is_dir()), None)


def _foundations(root: Path, marker: Mapping[str, object]) -> Iterator[Damage]:
    python = python_of(root)
    answer = run([python, "-I", "-c", _ASK], timeout=30)
    if answer.returncode != 0:
        target = python.readlink() if python.is_symlink() else python
        yield Damage(f"its interpreter {target} does not start")
    elif Path(answer.stdout.strip()).resolve() != root.resolve():
        yield Damage("pyvenv.cfg, which makes it an environment, is missing or altered")
    if "packages" in marker and not (root / OPTIONS).is_file():
        yield Damage(f"{OPTIONS} is missing")


def _dist_infos(site: Path) -> list[str]:
    return sorted(name for name in os.listdir(site) if name.endswith(".dist-info"))  # noqa: PTH208 - names only


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _entries(package: str, record: bytes) -> list[_Entry]:
    # Lines without a size are the RECORD's own and compiled files'.
    rows = csv.reader(record.decode("utf-8", "replace").splitlines())
    return [
        _Entry(package, row[0], row[1].removeprefix("sha256=") if row[1].startswith("sha256=") else "", int(row[2]))
        for row in rows
        if len(row) >= 3 and row[2].isdigit()
    ]


def _since(root: Path, deep: bool) -> float:
    return 0.0 if deep else (root / MARKER).stat().st_mtime


def _altered(site: Path, entries: list[_Entry], since: float) -> list[Damage]:
    damage, doubtful = [], []
    base = f"{site}{os.sep}"
    for entry in entries:
        try:
            status = os.stat(base + entry.path)  # noqa: PTH116 - 40,000 Path objects would take as long as the rest
        except OSError:
            damage.append(Damage(f"{_shown(entry)} is missing", entry.package))
            continue
        if status.st_size != entry.size:
            damage.append(Damage(f"{_shown(entry)} is altered", entry.package, status.st_nlink > 1))
        elif status.st_mtime > since and entry.sha256:
            doubtful.append((entry, status.st_nlink > 1))
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda pair: _hash_differs(base, pair[0]), doubtful)
        damage += [
            Damage(f"{_shown(entry)} is altered", entry.package, shared)
            for (entry, shared), differs in zip(doubtful, answers, strict=True)
            if differs
        ]
    return damage


def _shown(entry: _Entry) -> str:
    return os.path.normpath(entry.path).replace(f"..{os.sep}", "")


def _size_differs(site: Path, entry: _Entry) -> bool:
    path = site / entry.path
    return not path.is_file() or path.stat().st_size != entry.size


def _hash_differs(base: str, entry: _Entry) -> bool:
    try:
        with open(base + entry.path, "rb") as handle:  # noqa: PTH123
            digest = hashlib.file_digest(handle, "sha256").digest()
    except OSError:
        return True  # an unreadable sector of a dying disk
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != entry.sha256
