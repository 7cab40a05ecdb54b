"""What a training takes and what a machine has, as plain data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluxkit.hardware import Gpu, HostMemory
from fluxkit.rendering.profiles import Profile

# How well a figure is known, best first.
Surety = Literal["measured here", "measured profile", "estimate", "unknown"]


@dataclass(frozen=True)
class TrainingPlan:
    """A training, as far as memory and disk go.

    Args:
        profile: the VRAM class, with its measurement.
        release: the SimpleTuner release.
        resolutions: edges of the square crops, in pixels.
        batch_size: pictures in a step on the GPU.
        validation_edge: edge of the validation images, in pixels; None where none are made.
        adapter_parameters: trained values; None where they can't be counted.
        unmeasured: settings that the profile was not measured with and whose effect on memory is not known.
        checkpoints: how many lie on the disk at once.
        cache_bytes: of VAE and text caches that are still to be written.
        model_bytes: of the base model that is still to be downloaded.
        can_skip_validation: whether the release knows `validation_disable`.
    """

    profile: Profile
    release: str
    resolutions: tuple[int, ...]
    batch_size: int = 1
    validation_edge: int | None = 1024
    adapter_parameters: int | None = None
    unmeasured: tuple[str, ...] = ()
    checkpoints: int = 0
    cache_bytes: int = 0
    model_bytes: int = 0
    can_skip_validation: bool = True

    @property
    def has_other_precision(self) -> bool:
        """Whether the base model is quantized in another way than the profile's."""
        return any("base_model_precision" in setting for setting in self.unmeasured)


@dataclass(frozen=True)
class PhaseNeed:
    """What a phase of the run takes of the GPU.

    Args:
        phase: one of `trainer.measure.PHASES`.
        gib: PyTorch's tensors, in GiB: as measured, or the estimate.
        at_least: what is known of it: the measured figure of these conditions or smaller ones; 0 where nothing is.
        edge: of the pictures, in pixels; 0 where it doesn't matter.
    """

    phase: str
    gib: float
    at_least: float
    edge: int = 0


@dataclass(frozen=True)
class GpuNeed:
    """What a training takes of the GPU's memory, a CUDA context included.

    Args:
        phases: by phase; empty where nothing is known.
        surety: how well it is known.
        notes: what is not known, or was measured otherwise: one sentence each.
        ran_out_in: the phase in which these settings ran out of memory when they were measured on this machine.
        context_gib: what a CUDA context takes beyond PyTorch.
    """

    phases: tuple[PhaseNeed, ...]
    surety: Surety
    notes: tuple[str, ...] = ()
    ran_out_in: str = ""
    context_gib: float = 0.0

    @property
    def peak(self) -> PhaseNeed | None:
        """The phase that takes most; None where nothing is known."""
        return max(self.phases, key=lambda need: need.gib, default=None)

    @property
    def gib(self) -> float | None:
        """The whole need; None where nothing is known."""
        return self.peak.gib + self.context_gib if self.peak else None

    @property
    def at_least_gib(self) -> float:
        """The part of the need that is knowledge; 0 where there is none."""
        most = max((need.at_least for need in self.phases), default=0.0)
        return most + self.context_gib if most else 0.0


@dataclass(frozen=True)
class DiskNeed:
    """What will be written.

    Args:
        use: `the project` or `the model`, each on its own disk.
        what: in words.
        bytes: how much.
    """

    use: str
    what: str
    bytes: int


@dataclass(frozen=True)
class DiskSpace:
    """A disk.

    Args:
        folder: in which it was looked at.
        device: its number; two folders may share one.
        free: bytes.
    """

    folder: Path
    device: int
    free: int


@dataclass(frozen=True)
class Machine:
    """What is here.

    Args:
        gpu: the one that will train; None without.
        memory: RAM and swap.
        limit: what the container around this process may take of it, in bytes; None without a limit.
        disks: by use.
    """

    gpu: Gpu | None
    memory: HostMemory
    limit: int | None = None
    disks: dict[str, DiskSpace] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """Something that would make it fit.

    Args:
        title: what to change, as one would do it.
        cost: what it costs, in time or in quality.
    """

    title: str
    cost: str


@dataclass(frozen=True)
class Shortfall:
    """Something that is known not to fit.

    Args:
        what: `GPU memory`, `RAM` or `disk`.
        message: what is needed and what is there.
        changes: what would make it fit, the cheapest first.
    """

    what: str
    message: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Fit:
    """Whether a training fits a machine.

    Args:
        plan: the training.
        machine: what is here.
        gpu: what it takes of the GPU.
        host_gib: of RAM; None where it is not known.
        disk: what will be written.
        shortfalls: what is known not to fit; none means that it fits, or that nobody knows.
        notes: what is close, or not known.
    """

    plan: TrainingPlan
    machine: Machine
    gpu: GpuNeed
    host_gib: float | None
    disk: tuple[DiskNeed, ...]
    shortfalls: tuple[Shortfall, ...]
    notes: tuple[str, ...]
