"""What a checkout of SimpleTuner is and needs: its shape, its version, its launcher, and its packages as a lock.

Releases up to 2.1.3 are flat (`train.sh`, `train.py`, `helpers/` at the root; Poetry), later ones hold a package
`simpletuner/` with `train.sh` in it.
"""

import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from fluxkit.errors import InstallError, UserError
from fluxkit.trainer.index import published
from fluxkit.trainer.lock import Lock, Source, shipped_lock
from fluxkit.trainer.poetry import GitRequirement, PoetryProject, is_poetry_project, read_poetry_project
from fluxkit.trainer.releases import Release
from fluxkit.trainer.resolve import resolve_requirements

SCRIPTS = ("simpletuner/train.sh", "train.sh")
_VERSION = re.compile(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Checkout:
    """A folder with SimpleTuner's own files.

    Args:
        folder: where.
        script: its launcher, relative to `folder`.
        version: what it calls itself; empty for the flat releases, whose `pyproject.toml` never kept up.
    """

    folder: Path
    script: str
    version: str

    @property
    def packaged(self) -> bool:
        """Whether it holds the package `simpletuner` (2.2 and newer)."""
        return self.script != SCRIPTS[-1]


def open_checkout(folder: Path) -> Checkout:
    """Look at a checkout.

    Raises:
        UserError: it is none, or its launcher is where this fluxkit doesn't look.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", fix="Correct path in [simpletuner] of fluxkit.toml.")
    script = next((name for name in SCRIPTS if (folder / name).is_file()), None)
    if script is None:
        raise UserError(
            f"{folder} has no launcher of SimpleTuner: neither {' nor '.join(SCRIPTS)}.",
            fix="Name the top folder of a SimpleTuner checkout; if it is one, the launcher moved: update fluxkit.",
        )
    init = folder / "simpletuner" / "__init__.py"
    found = _VERSION.search(init.read_text(encoding="utf-8")) if init.is_file() else None
    return Checkout(folder, script, found[1] if found else "")


def lock_from_checkout(
    release: Release, platform: str, checkout: Checkout, source: Source, as_of: str, report: Report, *, index: str = ""
) -> Lock:
    """Every package that a checkout needs, with hashes: a shipped lock's, else resolved from its own files.

    Args:
        release: what it should be.
        platform: `cpu` or `cuda`.
        checkout: the files.
        source: where they came from.
        as_of: ISO day; nothing uploaded later is considered, but for what upstream takes from a repository.
        report: called with a line for each stage and for each package that is replaced.
        index: address of the package index; the usual one when empty.

    Raises:
        UserError: it is of another version.
        InstallError: no network, or its requirements can't be met together.
    """
    _check_version(release, checkout)
    shipped = shipped_lock(release, platform)
    if shipped is not None and checkout.packaged:
        return replace(shipped, requirements=without_package(shipped.requirements, "simpletuner"), source=source)
    report(f"Resolving what SimpleTuner {release.version} ({platform}) needs as of {as_of}")
    if is_poetry_project(checkout.folder):
        project = read_poetry_project(checkout.folder)
        text = _resolve_poetry(release, project, as_of, report, index)
        python = project.python
    else:
        python = _requires_python(checkout.folder) or release.python
        text = _resolve_package(replace(release, python=python), platform, checkout, as_of, index)
    release = replace(release, python=python, as_of=as_of)
    return Lock(release, platform, text, source, as_of=as_of, origin="resolved")


def without_package(requirements: str, name: str) -> str:
    """A requirements file without one package and its hashes."""
    kept, inside = [], False
    for line in requirements.splitlines(keepends=True):
        if not line.startswith((" ", "\t", "#")):
            found = _NAME.match(line)
            inside = found is not None and canonicalize_name(found[0]) == name
        if not inside:
            kept.append(line)
    return "".join(kept)


def _check_version(release: Release, checkout: Checkout) -> None:
    named = checkout.version
    if named and Version(named) != Version(release.version):
        raise UserError(
            f"{checkout.folder} is SimpleTuner {named}, not {release.version}.",
            fix=f'Set version = "{named}" in [simpletuner] of fluxkit.toml, or take a checkout of v{release.version}.',
        )
    if checkout.packaged != (Version(release.version) >= Version("2.2")):
        shape = "2.2 or newer" if checkout.packaged else "older than 2.2"
        raise UserError(
            f"{checkout.folder} is laid out like SimpleTuner {shape}; {release.version} is pinned.",
            fix="Set version in [simpletuner] of fluxkit.toml to the one that the folder holds.",
        )


def _resolve_poetry(release: Release, project: PoetryProject, as_of: str, report: Report, index: str) -> str:
    lines, later = list(project.requirements), {}
    for wanted in project.taken_from_git:
        version, day = _nearest_release(wanted, as_of, index)
        report(f"  {wanted.name}: SimpleTuner takes it from a repository; its release {version} is taken instead")
        lines.append(wanted.pinned(version))
        later[wanted.name] = day
    for name, address in project.other_indexes:
        report(f"  {name}: SimpleTuner takes it from {address}; the package index's build is taken instead")
    return resolve_requirements(
        "\n".join(lines),
        python=project.python,
        as_of=as_of,
        constraints=release.constraints,
        overrides=release.overrides,
        preferences=project.preferences,
        later=later,
        index=index,
        name=f"SimpleTuner {release.version}",
    )


def _nearest_release(wanted: GitRequirement, as_of: str, index: str) -> tuple[str, str]:
    """The first release that holds what upstream took from the repository, and the day it came.

    That is the one that upstream's lock leads to (`0.35.0.dev0` → 0.35.0); without a lock the first one that came
    after `as_of`, for the code was ahead of the release before.
    """
    known = list(published(index, wanted.name).values())
    if wanted.locked:
        after = [one for one in known if Version(one.version) >= Version(wanted.locked)]
    else:
        after = [one for one in known if one.uploaded.date().isoformat() >= as_of]
    if not known:
        raise InstallError(
            f"SimpleTuner takes {wanted.name} from a repository, and the package index has no release of it.",
            fix="Pin another release: `fluxkit upgrade` names the newest.",
        )
    chosen = after[0] if after else known[-1]
    return chosen.version, max(as_of, chosen.uploaded.date().isoformat())


def _requires_python(folder: Path) -> str:
    """What the package says itself; a release that isn't listed has only its neighbour's range."""
    try:
        data = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return ""
    return str(data.get("project", {}).get("requires-python", ""))


def _resolve_package(release: Release, platform: str, checkout: Checkout, as_of: str, index: str) -> str:
    """From the package's own metadata; building it writes beside `setup.py`, so a copy is asked."""
    extra = release.extras.get(platform)
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, "simpletuner")
        shutil.copytree(checkout.folder, copy, ignore=shutil.ignore_patterns(".git", "documentation", "tests"))
        text = resolve_requirements(
            f"simpletuner{f'[{extra}]' if extra else ''} @ {copy.as_uri()}",
            python=release.python,
            as_of=as_of,
            constraints=release.constraints,
            overrides=release.overrides,
            index=index,
            name=f"SimpleTuner {release.version}",
            env={"SIMPLETUNER_PLATFORM": platform},  # its setup.py would look for a GPU on this machine
        )
    return without_package(text, "simpletuner")
