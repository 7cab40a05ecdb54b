"""Print a Python of a minor version, found as fluxkit finds one for the trainer; nothing is downloaded.

.venv/bin/python scripts/find_python.py 3.13
"""

import sys
from dataclasses import replace

from fluxkit.errors import InstallError
from fluxkit.trainer.interpreter import find_interpreter
from fluxkit.trainer.releases import default_release

if __name__ == "__main__":
    minor = sys.argv[1]
    try:
        print(find_interpreter(replace(default_release(), python=f"=={minor}.*"), fetch=False))
    except InstallError:
        sys.exit(f"There is no Python {minor} on this machine.")
