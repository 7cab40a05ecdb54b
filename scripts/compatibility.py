"""Fill the table in docs/compatibility.md by running each release: plain install, fluxkit's, render, train, sample.

python scripts/compatibility.py [RELEASE]...     all listed releases, by default; rows of others stay as they are
    --plain     install each as it comes today, from the index, and nothing else: 10 GB, in a cache that is deleted
                unless UV_CACHE_DIR names one
    --no-train  stop after the release's own parser

A release without a package is rendered and checked against its schema. Everything runs in a folder of its own; the
environments that fluxkit makes lie in the user's cache and stay.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import uv

from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.files import write_text
from fluxkit.trainer.interpreter import find_interpreter
from fluxkit.trainer.releases import Release, find_release, releases

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
COLUMNS = ("release", "plain install imports?", "fluxkit install imports?", "render accepted?", "trains?", "samples?")
NOT_RUN = "–"


class Failed(Exception):
    """A stage went wrong; the message is its last line."""


def start(command: list[str | Path], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command; return its stdout.

    Raises:
        Failed: it ended with another exit code than 0.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}, cwd=cwd
    )
    if done.returncode != 0:
        said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        # Of a chain of tracebacks the first exception, the cause; of fluxkit its error.
        telling = [line for line in said if re.match(r"(error:|\w*(Error|Exception|Interrupt)\b)", line)] or said
        raise Failed(telling[0] if telling else f"exit code {done.returncode}")
    return done.stdout


def fluxkit(*arguments: str | Path) -> str:
    """Run fluxkit as a user would."""
    return start([sys.executable, "-m", "fluxkit", *arguments], env={"NO_COLOR": "1"})


def plain_install(release: Release, work: Path) -> None:
    """Install the release as pip would today, and ask its parser."""
    cache = {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(work.parent / "plain-cache"))}
    environment = work / "plain"
    start([uv.find_uv_bin(), "venv", "--quiet", "--no-project", "--python", find_interpreter(release), environment])
    install = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", environment / "bin" / "python"]
    start([*install, release.requirement("cpu")], env=cache)
    # In its folder: the trainer writes debug.log where it is started.
    start([environment / "bin" / "python", ROOT / "fluxkit" / "trainer" / "probe.py"], cwd=work)


def make_project(release: Release, work: Path) -> Path:
    """A demo project that pins the release."""
    root = work / "project"
    make_demo_dataset(root / "dataset", "fxkdemo", "person")
    flags = ["--trigger", "fxkdemo", "--subject", "person", "--dataset", "dataset", "--profile", "24gb", "--yes"]
    fluxkit("init", root, "--simpletuner", release.version, *flags)
    config = root / "fluxkit.toml"
    source = "" if "pypi" in release.sources else 'source = "git"\n'
    text = re.sub(r'\nsource = "pypi"\n', "\n", config.read_text(encoding="utf-8"))
    write_text(config, text.replace("[simpletuner]\n", f'[simpletuner]\nplatform = "cpu"\n{source}'))
    return root


def render(project: Path, work: Path, environment: Path | None) -> None:
    """Render for both profiles and, with an environment, ask the release itself."""
    config = project / "fluxkit.toml"
    folders = []
    for profile in ("12gb", "12gb-nf4", "24gb"):
        text = re.sub(r'\nprofile = "[\w-]+"', f'\nprofile = "{profile}"', config.read_text(encoding="utf-8"))
        write_text(config, text)
        folders.append(work / profile)
        fluxkit("render", "-C", project, "--out", folders[-1] / "config")
    if environment:
        start([environment / "bin" / "python", ROOT / "scripts" / "accept_config.py", *folders])


def sample(project: Path) -> None:
    """Make two images with the newest run's adapter."""
    (record,) = project.glob("runs/*/run.json")
    run_id = json.loads(record.read_text(encoding="utf-8"))["id"]
    fluxkit("sample", "-C", project, "--run", run_id, "--seeds", "1", "--size", "64x64", "--num-inference-steps", "2")
    if not list(project.glob("samples/**/*.png")):
        raise Failed("no image was written")


def row_of(release: Release, arguments: argparse.Namespace, before: list[str]) -> list[str]:
    """The release's row: what was seen now, and for what was not run what stood there."""
    row = [release.version, *(before or [NOT_RUN] * 5)]

    def see(column: int, stage: object) -> bool:
        try:
            stage()  # type: ignore[operator]
        except Failed as error:
            said = str(error).removeprefix("error: ").split(". ")[0].rstrip(".")
            row[column] = f"no: {said[:160]}".replace("|", "/")
        else:
            row[column] = "yes"
        sys.stdout.write(f"{release.version}: {COLUMNS[column]} {row[column]}\n")
        sys.stdout.flush()
        return row[column] == "yes"

    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        if "pypi" not in release.sources:
            project = make_project(release, work)
            if see(3, lambda: render(project, work, None)):
                row[3] = "yes, by its schema"
            return row
        if arguments.plain:
            see(1, lambda: plain_install(release, work))
            return row
        project = make_project(release, work)
        found: list[Path] = []
        if not see(2, lambda: found.append(Path(fluxkit("install", "-C", project).split()[-1]))):
            return row
        if see(3, lambda: render(project, work, found[0])) and arguments.train:
            see(4, lambda: fluxkit("train", "-C", project, "--rehearse"))
            if row[4] == "yes":
                see(5, lambda: sample(project))
    return row


def main() -> None:
    """Run the stages and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", nargs="*")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--no-train", dest="train", action="store_false")
    arguments = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    head, table, tail = re.split(r"(?<=<!-- table -->\n)(.*?)(?=<!-- end -->)", page, maxsplit=1, flags=re.DOTALL)
    cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in table.splitlines()]
    known = {row[0]: row[1:] for row in cells[2:]}
    chosen = [find_release(version) for version in arguments.release] or list(releases())
    with tempfile.TemporaryDirectory(prefix="fluxkit-compatibility-") as work:
        arguments.work = Path(work)
        for release in chosen:
            _, *known[release.version] = row_of(release, arguments, known.get(release.version, []))
            rows = [[one.version, *known[one.version]] for one in releases() if one.version in known]
            lines = [list(COLUMNS), ["---"] * len(COLUMNS), *rows]
            table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
            write_text(PAGE, head + table + tail)
    sys.stdout.write(f"{PAGE}, {datetime.now(UTC).date()}\n")


if __name__ == "__main__":
    main()
