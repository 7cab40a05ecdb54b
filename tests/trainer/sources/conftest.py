"""Git repositories made on the spot, shaped like SimpleTuner's eras, with a trainer that records what it is given.

`train.sh` is written anew for these tests: it reads the variables that upstream's reads, in the same order of
preference, and ends in `exit 0` as every release's does.
"""

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fluxkit.resources import resource
from fluxkit.trainer.releases import find_release

GIT = shutil.which("git") or "git"
FLAT, PACKAGED = "1.4.0", "4.7.0"  # no release of these numbers is listed
TRAIN_SH = """\
#!/usr/bin/env bash
if [ -f config/config.env ]; then source config/config.env; fi
: "${VENV_PATH:=${VIRTUAL_ENV:-$PWD/.venv}}"
if [ -z "$DISABLE_LD_OVERRIDE" ]; then export LD_LIBRARY_PATH="/from/train.sh:$LD_LIBRARY_PATH"; fi
: "${ENV:=default}"
: "${CONFIG_BACKEND:=${CONFIG_TYPE:-env}}"
export ENV CONFIG_BACKEND VENV_PATH
if [ -z "$DISABLE_UPDATES" ]; then poetry install; fi
if [ -z "$ACCELERATE_CONFIG_PATH" ]; then
    for home in "$HF_HOME" "$HOME/.cache/huggingface"; do
        if [ -f "$home/accelerate/default_config.yaml" ]; then
            ACCELERATE_CONFIG_PATH="$home/accelerate/default_config.yaml"; break
        fi
    done
fi
if [ -f "$ACCELERATE_CONFIG_PATH" ]; then
    accelerate launch --config_file="$ACCELERATE_CONFIG_PATH" @TRAIN@
else
    accelerate launch --num_processes="${TRAINING_NUM_PROCESSES:-1}" @TRAIN@
fi
exit 0
"""
ACCELERATE = """\
#!python
import os, subprocess, sys
script = next(word for word in sys.argv[1:] if word.endswith(".py"))
os.environ["SEEN_ACCELERATE"] = " ".join(sys.argv[1:])
sys.exit(subprocess.Popen([sys.executable, script]).wait())  # as accelerate does: `run` would kill it on Ctrl-C
"""
TRAIN_PY = """\
import json, os, sys
from pathlib import Path
from @PACKAGE@helpers.trainer import train
Path("debug.log").write_text("started")
sys.exit(train(json.loads(Path("config/config.json").read_text())))
"""
TRAINER = """\
import json, os, shutil, sys, time
from pathlib import Path

def train(config):
    out = Path(config["--output_dir"])
    out.mkdir(parents=True, exist_ok=True)
    seen = {"argv": sys.argv, "cwd": os.getcwd(), "env": dict(os.environ), "config": config, "file": __file__}
    Path(out, "seen.json").write_text(json.dumps(seen))
    mode = config.get("--webhook_config", "")
    if mode == "sleep":
        try:
            Path(out, "up").touch()
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.5)
            Path(out, "ended").write_text("well")
            return 0
    if mode == "crash":
        print("ValueError: it went wrong")
        return 1
    if mode != "silent":
        step = config["--max_train_steps"]
        (out / f"checkpoint-{step}").mkdir()
        for folder in (out / f"checkpoint-{step}", out):
            shutil.copy(os.environ["FAKE_WEIGHTS"], folder / "pytorch_lora_weights.safetensors")
    return 0
"""
CMD_ARGS = """\
import argparse
def get_argument_parser():
    parser = argparse.ArgumentParser()
    for name, kind in @OPTIONS@:
        if kind == "bool":
            parser.add_argument("--" + name, action="store_true")
        else:
            parser.add_argument("--" + name, type={"int": int, "float": float}.get(kind, str))
    return parser
"""
POETRY = """\
[tool.poetry]
name = "simpletuner"
version = "1.1.0"
package-mode = false
[tool.poetry.dependencies]
python = ">=3.10,<3.15"
tiny-dependency = "^1.0"
"""
PEP621 = """\
[project]
name = "simpletuner"
version = "@VERSION@"
requires-python = ">=3.10"
dependencies = ["tiny-dependency>=1"]
[build-system]
requires = []
build-backend = "none"
"""


_DAY = "2026-01-02T03:04:05Z"


def git(folder: Path, *arguments: str) -> str:
    """Git as upstream's author runs it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    env |= {"GIT_AUTHOR_DATE": _DAY, "GIT_COMMITTER_DATE": _DAY}  # the same files are the same commit
    who = ["-c", "user.name=Upstream", "-c", "user.email=upstream@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run([GIT, *who, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass(frozen=True)
class Upstream:
    """A repository that stands for SimpleTuner's."""

    folder: Path

    def release(self, version: str, *, annotated: bool = False) -> str:
        """Write and tag a release of the era that its number belongs to; return its commit."""
        _write_release(self.folder, version)
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "--quiet", "--allow-empty", "-m", version)
        git(self.folder, "tag", *(["-a", "-m", version] if annotated else []), f"v{version}")
        return git(self.folder, "rev-parse", "HEAD")

    def head(self) -> str:
        """The newest commit."""
        return git(self.folder, "rev-parse", "HEAD")

    def move_tag(self, version: str, *, forget: bool = False) -> str:
        """Let the tag point to a new commit; with `forget` nothing leads to the old one any more."""
        (self.folder / "moved.txt").write_text("other code")
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "--quiet", *(["--amend"] if forget else []), "-m", "moved")
        git(self.folder, "tag", "--force", f"v{version}")
        if forget:
            git(self.folder, "reflog", "expire", "--expire=now", "--all")
            git(self.folder, "gc", "--quiet", "--prune=now")
        return git(self.folder, "rev-parse", "HEAD")


def options(flat: bool) -> list[tuple[str, str]]:
    """The options of a real release of that era, as its schema has them."""
    schema = resource("third_party", "simpletuner", "schemas", "1.2.5.json" if flat else "4.8.0.json")
    known = json.loads(schema.read_text())["options"]
    return [(name, option.get("type", "str")) for name, option in known.items()]


def _write_release(folder: Path, version: str) -> None:
    """A checkout of the era that the number belongs to."""
    flat = version.startswith(("1.", "2.0", "2.1"))
    base = folder if flat else folder / "simpletuner"
    files = {
        base / "train.sh": TRAIN_SH.replace("@TRAIN@", "train.py" if flat else "simpletuner/train.py"),
        base / "train.py": TRAIN_PY.replace("@PACKAGE@", "" if flat else "simpletuner."),
        base / "helpers" / "__init__.py": "",
        base / "helpers" / "trainer.py": TRAINER,
        base / "helpers" / "configuration" / "__init__.py": "",
        base / "helpers" / "configuration" / "cmd_args.py": CMD_ARGS.replace("@OPTIONS@", repr(options(flat))),
        folder / "pyproject.toml": POETRY if flat else PEP621.replace("@VERSION@", version),
    }
    if not flat:
        files[base / "__init__.py"] = f'__version__ = "{version}"\n'
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def write_release() -> Callable[[Path, str], None]:
    """Writes a checkout of the era that a number belongs to."""
    return _write_release


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "--quiet")
    return Upstream(folder)


@pytest.fixture(autouse=True)
def _unlisted_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two numbers are known, with this Python, no lock and no commit that fluxkit expects."""
    made = {
        version: replace(find_release(version), python=">=3.10", sources=("pypi", "git", "path"), extras={})
        for version in (FLAT, PACKAGED)
    }
    known = find_release
    monkeypatch.setattr("fluxkit.trainer.pin.find_release", lambda version: made.get(version) or known(version))
    monkeypatch.setattr("fluxkit.trainer.lockfile.find_release", lambda version: made.get(version) or known(version))


def make_wheel(folder: Path, name: str, version: str, scripts: dict[str, str]) -> Path:
    """A wheel of a few lines, the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    files |= {f"{name}-{version}.data/scripts/{script}": text for script, text in scripts.items()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
    return wheel


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels instead of an index; its one package brings the `accelerate` program."""
    folder = tmp_path / "wheels"
    make_wheel(folder, "tiny_dependency", "1.0", {"accelerate": ACCELERATE})
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def quickly_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving takes uv a second or two; where only the code's way matters, an answer is given."""
    text = "tiny-dependency==1.0 \\\n    --hash=sha256:00\n"
    monkeypatch.setattr("fluxkit.trainer.sources.checkout.resolve_requirements", lambda *_, **__: text)
