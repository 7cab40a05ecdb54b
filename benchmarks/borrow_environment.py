"""Make a trainer's environment out of packages that lie elsewhere: for a GPU machine without a network.

    python3 benchmarks/borrow_environment.py DIR --site /tmp/stack --site /opt/torch/.venv/lib/python3.12/site-packages

makes DIR/bin/python (this interpreter's), DIR/bin/simpletuner and DIR/bin/accelerate, which import from the folders
named, the first one first. `benchmarks/profiles.py --environment DIR` takes it. Standard library only.

    python3 benchmarks/borrow_environment.py --installed 4.8.0 --site …

makes it where `fluxkit install` would have put that release, so that fluxkit's own commands (`fit --measure`, `train`)
take it on such a machine. This needs what fluxkit imports.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import venv
from pathlib import Path

PROGRAMS = {"simpletuner": "simpletuner", "accelerate": "accelerate"}  # a package and its program


def borrow(folder: Path, sites: list[Path]) -> list[Path]:
    """Make the environment; return its programs.

    Raises:
        SystemExit: a package is in none of the folders.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    (own,) = folder.glob("lib/python*/site-packages")
    # addsitedir rather than a bare path: the folders' own .pth files count too (editable installs, nvidia's libraries).
    lines = [f"import site; site.addsitedir({str(site.absolute())!r})" for site in sites]
    (own / "borrowed.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = []
    for package, program in PROGRAMS.items():
        path = folder / "bin" / program
        module, _, function = _entry_point(package, program, sites).partition(":")
        path.write_text(
            f"#!{folder.absolute() / 'bin' / 'python'}\nimport sys\nfrom {module} import {function}\n"
            f'if __name__ == "__main__":\n    sys.exit({function}())\n',
            encoding="utf-8",
        )
        path.chmod(0o755)
        made.append(path)
    return made


def place_of(version: str) -> tuple[Path, str]:
    """Where fluxkit looks for a release on this machine, and the digest of its lock.

    Raises:
        SystemExit: fluxkit ships no lock for it.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from fluxkit.trainer.cached import environment_for
    from fluxkit.trainer.lock import choose_platform, shipped_lock
    from fluxkit.trainer.releases import find_release

    lock = shipped_lock(find_release(version), choose_platform("auto"))
    if lock is None:
        sys.exit(f"fluxkit ships no lock of SimpleTuner {version} for this machine.")
    return environment_for(lock).root, lock.digest


def mark_ready(folder: Path, digest: str, version: str) -> None:
    """Say that the environment of that lock is there: it is borrowed, and its packages are not listed."""
    marker = {"digest": digest, "python": platform.python_version(), "release": version, "borrowed": True}
    (folder / "fluxkit-ready.json").write_text(json.dumps(marker), encoding="utf-8")


def _entry_point(package: str, program: str, sites: list[Path]) -> str:
    for found in importlib.metadata.distributions(name=package, path=[str(site) for site in sites]):
        for entry in found.entry_points:
            if entry.group == "console_scripts" and entry.name == program:
                return entry.value
    sys.exit(f"{package} is in none of: {', '.join(map(str, sites))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--site", type=Path, action="append", required=True)
    parser.add_argument("--installed", metavar="VERSION", help="where fluxkit looks for that release, instead of DIR")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (arguments.installed is None):
        parser.error("name DIR or --installed VERSION")
    if arguments.installed:
        arguments.folder, its_digest = place_of(arguments.installed)
        arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    for made in borrow(arguments.folder, arguments.site):
        print(made)
    if arguments.installed:
        mark_ready(arguments.folder, its_digest, arguments.installed)
