"""Regenerate the locks under third_party/simpletuner/locks, from the facts in releases.toml. Needs the package index.

python scripts/lock.py [RELEASE]...            all releases that have locks, by default
python scripts/lock.py --check [RELEASE]...    resolve again and compare; 1 when one differs
"""

import argparse
import difflib
import sys
from itertools import groupby

from fluxkit.files import write_text
from fluxkit.resources import resource
from fluxkit.trainer.releases import Release, find_release, releases
from fluxkit.trainer.resolve import resolve_requirements


def lock_text(release: Release, platform: str) -> str:
    """The lock's text: universal, so that one file serves every Linux and Python that the release supports.

    Raises:
        InstallError: uv found no resolution.
    """
    body = resolve_requirements(
        release.requirement(platform),
        python=release.python,
        as_of=release.as_of,
        constraints=release.constraints,
        overrides=release.overrides,
    )
    return _header(release, platform) + body


def _header(release: Release, platform: str) -> str:
    extra = release.extras[platform]
    with_extra = f", extra [{extra}]" if extra else ""
    lines = [
        f"# SimpleTuner {release.version}{with_extra}: every dependency with its hashes, as of {release.as_of}. "
        "Made by scripts/lock.py."
    ]
    for verb, pins in (("Constrained", release.constraints), ("Overridden", release.overrides)):
        for reason, group in groupby(pins, key=release.reasons.__getitem__):
            lines.append(f"# {verb} to {', '.join(group)}: {reason}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write or check the locks of the releases named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="*")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = False
    for release in [find_release(version) for version in arguments.release] or releases():
        for platform, name in release.locks.items():
            path = resource("third_party", "simpletuner", "locks", name)
            text = lock_text(release, platform)
            if not arguments.check:
                write_text(path, text)
                sys.stdout.write(f"{name}: written\n")
                continue
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            diff = list(
                difflib.unified_diff(before.splitlines(), text.splitlines(), name, "resolved", lineterm="", n=0)
            )
            sys.stdout.write("\n".join([f"{name}: {'differs' if diff else 'as resolved'}", *diff[:40]]) + "\n")
            stale = stale or bool(diff)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
