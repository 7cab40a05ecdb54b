"""What the checks are given and what they find."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluxkit.errors import UserError
from fluxkit.hardware import Gpu, HostMemory
from fluxkit.project.load import Project
from fluxkit.trainer.cached import Environment
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.pin import Pin

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        group: the heading that it stands under.
        level: `problem` keeps something from working, `warning` may.
        message: what is so.
        fix: what to do about it; empty when nothing need be done.
    """

    group: str
    level: Level
    message: str
    fix: str = ""


@dataclass(frozen=True)
class TorchBuild:
    """A torch and the GPUs that it was built for.

    Args:
        where: whose it is, for people.
        version: its version.
        archs: `sm_90`, `compute_120` …; None when it has no CUDA, or did not answer.
        cuda: the CUDA that it was built with, e.g. `13.0`; empty without.
    """

    where: str
    version: str
    archs: tuple[str, ...] | None
    cuda: str = ""


@dataclass(frozen=True)
class Disk:
    """The filesystem that a folder lies on.

    Args:
        folder: the folder, or the nearest one upwards that is there.
        device: tells filesystems apart.
        free: in bytes.
    """

    folder: Path
    device: int
    free: int


@dataclass(frozen=True)
class CachedEnvironment:
    """A folder among the trainers' environments.

    Args:
        root: the folder.
        state: `ready`, `half-built`, `building` (by another fluxkit, now) or `damaged`.
        digest: of the lock it was built from; empty for one that is not finished.
        size: of its packages, in bytes, by their own lists; files that uv's cache shares count.
        damage: what is not as it was installed.
    """

    root: Path
    state: Literal["ready", "half-built", "building", "damaged"]
    digest: str = ""
    size: int = 0
    damage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that was found out, before anything is judged.

    Args:
        python: fluxkit's own interpreter's version.
        gpus: with details.
        memory: RAM and swap.
        disks: use (`the trainer`, `the model`, `the project`) → filesystem.
        cached_model_bytes: how much of the base model is on this machine already.
        git: git's version, or None.
        uv: uv's version, or None.
        torches: each torch that was asked; none is, where there is no GPU.
        token: whether there is a Hub token.
        hub: None when the base model can be had, why not, or `skipped`.
        environments: all in the cache.
        sampling: package → version, None where it is missing.
        project: the project around, or None.
        project_error: why it can't be read.
        pin: what it asks for.
        lock: what that resolved to, or None.
        lock_error: why `fluxkit.lock` can't be read.
        environment: where that is or will be installed.
        missing_compiler: what compiling needs and this machine lacks, in words.
        trainer_python: version of the interpreter it has or would get; None when there is none.
        in_lock_file: platform → what `fluxkit.lock` holds; empty where there is none.
    """

    python: str
    gpus: tuple[Gpu, ...]
    memory: HostMemory
    disks: Mapping[str, Disk]
    cached_model_bytes: int = 0
    git: str | None = None
    missing_compiler: tuple[str, ...] = ()
    uv: str | None = None
    torches: tuple[TorchBuild, ...] = ()
    token: bool = False
    hub: UserError | Literal["skipped"] | None = None
    environments: tuple[CachedEnvironment, ...] = ()
    sampling: Mapping[str, str | None] = field(default_factory=dict)
    project: Project | None = None
    project_error: UserError | None = None
    pin: Pin | None = None
    lock: Lock | None = None
    lock_error: UserError | None = None
    environment: Environment | None = None
    trainer_python: str | None = None
    in_lock_file: Mapping[str, Lock] = field(default_factory=dict)

    @property
    def own_environment(self) -> CachedEnvironment | None:
        """The project's, where its folder is there."""
        root = self.environment.root if self.environment else None
        return next((one for one in self.environments if one.root == root), None)

    @property
    def base(self) -> str:
        """The base model; the usual one outside a project."""
        from fluxkit.project.config import FLUX_DEV

        return self.project.config.model.base if self.project else FLUX_DEV
