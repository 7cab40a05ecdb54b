"""Find the facts out: the only part of the doctor that touches the machine. Nothing is written."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Literal

from filelock import FileLock, Timeout

from fluxkit.doctor.model import CachedEnvironment, Disk, Facts, TorchBuild
from fluxkit.errors import FluxkitError, UserError
from fluxkit.files import cache_dir
from fluxkit.hardware import gpus, host_memory
from fluxkit.hub import HubUnreachable, cached_bytes, check_base, has_token, hub_cache_dir
from fluxkit.process import run
from fluxkit.project.load import Project
from fluxkit.trainer.cached import (
    Environment,
    environment_for,
    environments_dir,
    is_ready,
    python_of,
    python_version,
    read_marker,
)
from fluxkit.trainer.compiler import missing_for_compiling
from fluxkit.trainer.integrity import find_damage, recorded_bytes
from fluxkit.trainer.interpreter import find_interpreter, version_of
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.lockfile import read_lock_file
from fluxkit.trainer.pin import Pin, locked
from fluxkit.trainer.uv import clean_env, existing, uv_version

HUB_SECONDS = 8.0
SAMPLING = ("torch", "diffusers", "transformers", "lycoris-lora", "optimum-quanto", "peft")
_MARK = "fluxkit-torch:"
# get_arch_list() is empty where no GPU is seen; the flags are the build's own, and absent from a build without CUDA.
_ASK_TORCH = (
    "import json, torch\n"
    "flags = getattr(torch._C, '_cuda_getArchFlags', lambda: None)()\n"
    f"print({_MARK!r} + json.dumps([torch.__version__, flags.split() if flags else None, torch.version.cuda or '']))"
)


def gather(project: Project | None, pin: Pin | None, error: UserError | None = None, *, offline: bool = False) -> Facts:
    """Look at the machine and at a project.

    Args:
        project: the project, or None outside of one.
        pin: what it asks for.
        error: why the project can't be read.
        offline: ask the Hub nothing.
    """
    lock, in_file, lock_error = _locks(project, pin)
    environment = environment_for(lock) if lock else None
    with ThreadPoolExecutor() as pool:
        found = tuple(gpus(details=True))
        torches = pool.submit(_torches, environment) if found else None
        base = project.config.model.base if project else None
        hub = pool.submit(_hub, project, offline)
        environments = pool.submit(_environments, environment)
        python = pool.submit(_trainer_python, pin, environment)
        return Facts(
            python=".".join(map(str, sys.version_info[:3])),
            gpus=found,
            memory=host_memory(),
            disks=_disks(project),
            cached_model_bytes=cached_bytes(base or "black-forest-labs/FLUX.1-dev"),
            git=_git(),
            missing_compiler=_missing_compiler(environment),
            uv=_uv(),
            torches=torches.result() if torches else (),
            token=has_token(),
            hub=hub.result(),
            environments=environments.result(),
            sampling={name: _version(name) for name in SAMPLING},
            project=project,
            project_error=error,
            pin=pin,
            lock=lock,
            lock_error=lock_error,
            environment=environment,
            trainer_python=python.result(),
            in_lock_file=in_file,
        )


def _locks(project: Project | None, pin: Pin | None) -> tuple[Lock | None, dict[str, Lock], UserError | None]:
    if project is None or pin is None:
        return None, {}, None
    try:
        in_file = {name: one.lock for name, one in read_lock_file(project.lock_file).items()}
        return locked(pin, project.lock_file), in_file, None
    except UserError as error:
        return None, {}, error


def _disks(project: Project | None) -> dict[str, Disk]:
    folders = {"the trainer": cache_dir(), "the model": hub_cache_dir()}
    if project:
        folders["the project"] = project.root
    return {use: _disk(folder.absolute()) for use, folder in folders.items()}


def _disk(folder: Path) -> Disk:
    there = existing(folder)
    return Disk(there, there.stat().st_dev, shutil.disk_usage(there).free)


def _missing_compiler(environment: Environment | None) -> tuple[str, ...]:
    return missing_for_compiling(environment.python if environment and is_ready(environment) else None)


def _git() -> str | None:
    done = run(["git", "--version"], timeout=10)
    return done.stdout.strip().removeprefix("git version ") if done.returncode == 0 else None


def _uv() -> str | None:
    try:
        return uv_version() or None
    except FluxkitError:
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torches(environment: Environment | None) -> tuple[TorchBuild, ...]:
    asked: list[tuple[str, Path]] = []
    if environment and is_ready(environment):
        asked.append(("the trainer", environment.python))
    if _version("torch"):
        asked.append(("fluxkit", Path(sys.executable)))
    return tuple(ask_torch(where, python) for where, python in asked)


def ask_torch(where: str, python: Path) -> TorchBuild:
    """What the torch of an interpreter was built for; it needs no GPU."""
    done = run([python, "-c", _ASK_TORCH], env=clean_env(), timeout=120)
    line = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        return TorchBuild(where, "(does not start)", None)
    name, flags, cuda = json.loads(line[len(_MARK) :])
    return TorchBuild(where, name, tuple(flags) if flags else None, cuda)


def _hub(project: Project | None, offline: bool) -> UserError | Literal["skipped"] | None:
    if project is None:
        return "skipped"
    base, revision = project.config.model.base, project.config.model.revision
    local = (project.root / Path(base).expanduser()).resolve()
    if offline and not local.is_dir():
        return "skipped"
    # In a thread of its own: the Hub's client waits longer than a person would.
    answers: Queue[UserError | None] = Queue()

    def ask() -> None:
        try:
            check_base(str(local) if local.is_dir() else base, revision)
            answers.put(None)
        except UserError as error:
            answers.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=HUB_SECONDS)
    except Empty:
        return HubUnreachable(
            f"The model hub did not answer within {HUB_SECONDS:.0f} seconds.", fix="Check the network and the proxy."
        )


def _trainer_python(pin: Pin | None, environment: Environment | None) -> str | None:
    if pin is None:
        return None
    if environment and is_ready(environment):
        return python_version(environment)
    try:
        return version_of(find_interpreter(pin.release, fetch=False))
    except FluxkitError:
        return None


def _environments(mine: Environment | None) -> tuple[CachedEnvironment, ...]:
    folder = environments_dir()
    roots = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    # Files of those that this project doesn't use are not looked at: 40,000 each, seconds from a cold disk.
    return tuple(_environment(root, files=mine is not None and root == mine.root) for root in roots)


def _environment(root: Path, *, files: bool) -> CachedEnvironment:
    marker: Any = read_marker(root)
    size = recorded_bytes(root)
    if not marker:
        return CachedEnvironment(root, "building" if _is_locked(root) else "half-built", size=size)
    damage = tuple(one.what for one in find_damage(root, files=files))
    if not python_of(root).exists() and not damage:
        damage = ("its interpreter is gone",)
    return CachedEnvironment(root, "damaged" if damage else "ready", str(marker.get("digest", "")), size, damage)


def _is_locked(root: Path) -> bool:
    path = Path(f"{root}.lock")
    if not path.exists():
        return False
    guard = FileLock(path)
    try:
        guard.acquire(timeout=0)
    except (Timeout, OSError):
        return True
    guard.release()
    return False
