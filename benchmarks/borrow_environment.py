"""Make a trainer's environment out of packages that lie elsewhere: for a GPU machine without a network.

    python3 benchmarks/borrow_environment.py DIR --site /tmp/stack --site /opt/torch/.venv/lib/python3.12/site-packages

makes DIR/bin/python (this interpreter's), DIR/bin/simpletuner and DIR/bin/accelerate, which import from the folders
named, the first one first. `benchmarks/profiles.py --environment DIR` takes it. Standard library only.
"""

import argparse
import importlib.metadata
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


def _entry_point(package: str, program: str, sites: list[Path]) -> str:
    for found in importlib.metadata.distributions(name=package, path=[str(site) for site in sites]):
        for entry in found.entry_points:
            if entry.group == "console_scripts" and entry.name == program:
                return entry.value
    sys.exit(f"{package} is in none of: {', '.join(map(str, sites))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    for made in borrow(arguments.folder, arguments.site):
        print(made)
