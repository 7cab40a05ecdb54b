"""Commands in the real home, for the tests with the real trainer: its 6 GB are installed once, not once a test."""

import os
import subprocess
import sys
from pathlib import Path

# Read before the fixtures give every test a home of its own.
REAL_ENVIRONMENT = dict(os.environ)


def fluxkit(*arguments: str | Path) -> str:
    """Run a command of the installed fluxkit that has to succeed; what it printed."""
    return python("-m", "fluxkit", *arguments)


def python(*arguments: str | Path, cwd: Path | None = None, **env: str) -> str:
    """Run this interpreter, which has to succeed; what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**REAL_ENVIRONMENT, "NO_COLOR": "1", **env},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
