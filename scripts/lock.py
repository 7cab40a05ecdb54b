"""Regenerate the locks under third_party/simpletuner/locks, from the facts in releases.toml.

python scripts/lock.py [RELEASE]...      all releases that have locks, by default
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import uv

from fluxkit.files import write_text
from fluxkit.resources import resource
from fluxkit.trainer.releases import Release, find_release, releases

HEADER = """\
# SimpleTuner {version}, extra [{extra}]: every dependency with its hashes, as of {as_of}. Made by scripts/lock.py.
# Constrained to {constraints}: {reason}
"""


def resolve(release: Release, extra: str) -> str:
    """The lock's text: universal, so that one file serves every Linux and Python that the release supports.

    Raises:
        subprocess.CalledProcessError: uv found no resolution; it says why on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements, constraints = Path(folder, "in.txt"), Path(folder, "constraints.txt")
        requirements.write_text(f"simpletuner[{extra}]=={release.version}\n", encoding="utf-8")
        constraints.write_text("\n".join(release.constraints) + "\n", encoding="utf-8")
        command = [uv.find_uv_bin(), "pip", "compile", str(requirements), "-c", str(constraints)]
        command += ["--universal", "--python-version", "3.12", "--generate-hashes", "--exclude-newer", release.as_of]
        command += ["--no-annotate", "--no-header", "--no-emit-index-url", "--quiet"]
        body = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    header = HEADER.format(
        version=release.version,
        extra=extra,
        as_of=release.as_of,
        constraints=", ".join(release.constraints),
        reason=release.constraints_reason,
    )
    return header + body


def main() -> None:
    """Write the locks of the releases named on the command line."""
    chosen = [find_release(version) for version in sys.argv[1:]] or list(releases())
    for release in chosen:
        for platform, name in release.locks.items():
            path = resource("third_party", "simpletuner", "locks", name)
            write_text(path, resolve(release, release.extras[platform]))
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
