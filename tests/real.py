"""The installed command in the real home, for the tests with the real trainer: an environment is made once."""

import os
import subprocess
import sys
from pathlib import Path

# Read before the fixtures give every test a home of its own.
REAL_ENVIRONMENT = dict(os.environ)


def fluxkit(*arguments: str | Path) -> str:
    """Run a command that has to succeed; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fluxkit", *arguments],
        env={**REAL_ENVIRONMENT, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
