"""What compiling on a GPU needs of a machine: Triton builds a small C module against Python's headers."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxkit.process import run

PACKAGES = "Install them, e.g. `sudo apt install build-essential python3-dev`"

# As Triton looks for them: Debian's default scheme speaks of /usr/local, where they are not.
_HAS_HEADERS = """
import os, sysconfig
scheme = sysconfig.get_default_scheme()
scheme = "posix_prefix" if scheme == "posix_local" else scheme
print(os.path.isfile(os.path.join(sysconfig.get_paths(scheme)["include"], "Python.h")))
"""


def compiles(options: Mapping[str, Any]) -> bool:
    """Whether these SimpleTuner options compile the model.

    Args:
        options: without `--`.
    """
    return str(options.get("dynamo_backend", "no")).lower() not in ("no", "none", "")


def missing_for_compiling(python: Path | None = None) -> tuple[str, ...]:
    """What Triton would not find: it asks for CC, gcc or clang, and includes Python.h.

    Args:
        python: the trainer's interpreter; None where it is not installed yet, and nothing is known of its headers.

    Returns:
        What is missing, in words; empty when nothing is.
    """
    found = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang"))), None)
    missing = [] if found and shutil.which(found) else ["a C compiler (gcc)"]
    if python is not None and sys.platform == "linux":
        done = run([os.fspath(python), "-c", _HAS_HEADERS], timeout=30)
        if done.returncode == 0 and done.stdout.strip() == "False":
            missing.append("Python's headers (Python.h)")
    return tuple(missing)
