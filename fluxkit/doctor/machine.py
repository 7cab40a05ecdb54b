"""GPU, memory, disk and programs."""

import math
import re
from collections.abc import Iterator

from fluxkit.doctor.model import Disk, Facts, Finding, TorchBuild
from fluxkit.errors import UserError
from fluxkit.hardware import Gpu, GpuProcess
from fluxkit.project.config import FLUX_DEV
from fluxkit.rendering.profiles import Profile, class_profiles, load_profile, smaller_stand_in
from fluxkit.trainer.compiler import PACKAGES, compiles

QUANTIZE_BYTES = 21.78 * 2**30  # RAM to quantize FLUX.1-dev on the CPU to int8, as measured
MODEL_BYTES = 33.3e9  # FLUX.1-dev in diffusers format
TRAINER_BYTES = 6.7e9  # SimpleTuner 4.8.0 for CUDA: 6,306 MiB (2026-11-24)
PROJECT_BYTES = 5e9  # checkpoints and image caches of a run
_ARCH = re.compile(r"(sm|compute)_(\d+)(\d)[a-z]?$")


def check_gpu(facts: Facts) -> Iterator[Finding]:
    """Each GPU: is there one, does it hold the profile, can each torch use it?"""
    group = "GPU"
    if not facts.gpus:
        wants = facts.project is not None and facts.project.config.simpletuner.platform == "cuda"
        yield Finding(
            group,
            "problem" if wants else "warning",
            "No NVIDIA GPU was found, or its driver is not installed.",
            "Training and sampling need one (12 GB or more). With a card in the machine, install NVIDIA's driver and "
            "see that `nvidia-smi` lists it. Rehearsals work without.",
        )
        return
    profile = _profile(facts)
    for gpu in facts.gpus:
        capability = ".".join(map(str, gpu.capability))
        yield Finding(
            group,
            "ok",
            f"{gpu.name}, {gpu.memory_gib:.0f} GiB, driver {gpu.driver}, CUDA up to {gpu.cuda}, "
            f"compute capability {capability}",
        )
        yield from _memory_of(gpu, profile)
        yield from (_torch_on(gpu, torch) for torch in facts.torches)


def _memory_of(gpu: Gpu, profile: Profile | None) -> Iterator[Finding]:
    group = "GPU"
    needed = profile.card_gib if profile else 0.0
    holders = ", ".join(_holder(one) for one in gpu.processes)
    if profile and needed > gpu.memory_gib:
        fitting = [name for name in class_profiles() if load_profile(name).card_gib <= gpu.memory_gib]
        fix = f'Set [train] profile to "{fitting[-1]}".' if fitting else "FLUX needs a card with 12 GB or more."
        yield Finding(
            group,
            "problem",
            f'The profile "{profile.name}" was measured to take {needed:.1f} GiB; this card has {gpu.memory_gib:.1f}.',
            fix,
        )
    elif needed > gpu.free_bytes / 2**30 or (profile is None and holders):
        yield Finding(
            group,
            "warning",
            f"{gpu.free_bytes / 2**30:.1f} GiB of its memory are free"
            + (f', the profile "{profile.name}" takes {needed:.1f}' if profile else "")
            + f"; it is held by {holders or 'programs that the driver does not name'}.",
            "Close them before you train: a desktop, a browser or another training.",
        )


def _holder(process: GpuProcess) -> str:
    held = f", {process.memory_bytes / 2**30:.1f} GiB" if process.memory_bytes else ""
    return f"{process.name or 'a program'} (process {process.pid}{held})"


def _torch_on(gpu: Gpu, torch: TorchBuild) -> Finding:
    what = f"torch {torch.version} of {torch.where}"
    if torch.archs is None:
        return Finding(
            "GPU",
            "problem",
            f"{what} was built without CUDA: it can't use the GPU.",
            'Set platform = "auto" in [simpletuner] and run `fluxkit install`.'
            if "trainer" in torch.where
            else "Install torch again, from an index that has the CUDA build: `pip install --force-reinstall torch`.",
        )
    if not supports(torch.archs, gpu.capability):
        return Finding(
            "GPU",
            "problem",
            f"{what} was not built for this card (compute capability {'.'.join(map(str, gpu.capability))}); it knows "
            f"{', '.join(torch.archs)}.",
            "`fluxkit upgrade` takes a newer SimpleTuner with a newer torch."
            if "trainer" in torch.where
            else "`pip install --upgrade torch` takes a newer one.",
        )
    if _major(torch.cuda) > _major(gpu.cuda) > 0:
        # A driver runs every build of its own CUDA's major version and of older ones.
        return Finding(
            "GPU",
            "problem",
            f"{what} was built with CUDA {torch.cuda}; the driver {gpu.driver} runs CUDA up to {gpu.cuda}.",
            f"Install a newer NVIDIA driver, one that runs CUDA {torch.cuda}, and restart the machine.",
        )
    return Finding("GPU", "ok", f"{what} was built for this card")


def _major(cuda: str) -> int:
    major = cuda.partition(".")[0]
    return int(major) if major.isdigit() else 0


def supports(archs: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether code built for `archs` runs: machine code within a major version, PTX on everything newer."""
    for arch in archs:
        match = _ARCH.match(arch)
        if match:
            built = (int(match[2]), int(match[3]))
            same = built[0] == capability[0] and built <= capability
            if same or (match[1] == "compute" and built <= capability):
                return True
    return False


def check_memory(facts: Facts) -> Iterator[Finding]:
    """RAM and swap against what loading and quantizing the base model takes."""
    memory = facts.memory
    both = memory.total + memory.swap
    profile = _profile(facts)
    measured = profile.measured.host_gib if profile else None
    # Without a profile the larger way, quantizing on the CPU.
    held = measured * 2**30 if measured else QUANTIZE_BYTES
    needed = held * 1.1  # a tenth for what else runs
    has = f"{memory.total / 1e9:.0f} GB of RAM and {memory.swap / 1e9:.0f} GB of swap"
    why = f'The profile "{profile.name}" takes' if profile and measured else "Quantizing FLUX.1-dev on the CPU takes"
    takes = f"{why} about {needed / 1e9:.0f} GB"
    if both < needed:
        other = smaller_stand_in(profile, both) if profile else None
        instead = f', or set [train] profile to "{other.name}"' if other else ""
        # As `train` does, which refuses what is less than was measured.
        ends = both < held
        outcome = "the system would end the training" if ends else "that leaves hardly anything for other programs"
        yield Finding(
            "Memory",
            "problem" if measured and ends else "warning",
            f"{has}. {takes}: {outcome}.",
            f"Add {math.ceil((needed - both) / 1e9)} GB of swap or more (slow, but only at the start), or add RAM"
            f"{instead}.",
        )
    elif memory.total < needed:
        yield Finding("Memory", "warning", f"{has}. {takes}: it will be slow while it loads.", "More RAM would help.")
    else:
        yield Finding("Memory", "ok", f"{has}, {memory.available / 1e9:.0f} GB available")


def check_disk(facts: Facts) -> Iterator[Finding]:
    """Each filesystem once: what is still to come to it, against what is free."""
    needs = {
        "the trainer": 0.0 if facts.own_environment and facts.own_environment.state == "ready" else TRAINER_BYTES,
        "the model": max(0.0, MODEL_BYTES - facts.cached_model_bytes) if facts.base == FLUX_DEV else 0.0,
        "the project": PROJECT_BYTES,
    }
    by_device: dict[int, list[tuple[str, Disk]]] = {}
    for use, disk in facts.disks.items():
        by_device.setdefault(disk.device, []).append((use, disk))
    for uses in by_device.values():
        disk = uses[0][1]
        needed = sum(needs.get(use, 0.0) for use, _ in uses)
        parts = ", ".join(f"{use} {needs[use] / 1e9:.0f} GB" for use, _ in uses if needs.get(use, 0.0) >= 5e8)
        has = f"{disk.free / 1e9:.0f} GB free at {disk.folder}"
        if disk.free < needed:
            # Outside a project nothing was asked for yet, unless the disk is as good as full.
            yield Finding(
                "Disk",
                "problem" if facts.project or disk.free < 1e9 else "warning",
                f"{has}, and about {needed / 1e9:.0f} GB are still to come: {parts}.",
                f"Free {(needed - disk.free) / 1e9:.0f} GB, or move parts to a bigger disk: FLUXKIT_CACHE and "
                "UV_CACHE_DIR for the trainer, HF_HOME for the model.",
            )
        else:
            yield Finding("Disk", "ok", has + (f"; still to come: {parts}" if parts else ""))


def check_programs(facts: Facts) -> Iterator[Finding]:
    """Interpreters, git, uv, and a compiler where the profile needs one."""
    group = "Programs"
    yield Finding(group, "ok", f"Python {facts.python} runs fluxkit")
    if facts.pin and facts.trainer_python:
        yield Finding(group, "ok", f"Python {facts.trainer_python} for SimpleTuner {facts.pin.version}")
    elif facts.pin:
        yield Finding(
            group,
            "warning",
            f"No Python that SimpleTuner {facts.pin.version} supports is on this machine.",
            "`fluxkit install` lets uv fetch one; that needs the network.",
        )
    needs_git = facts.pin is not None and facts.pin.source == "git"
    if facts.git:
        yield Finding(group, "ok", f"git {facts.git}")
    else:
        yield Finding(
            group,
            "problem" if needs_git else "warning",
            "git is not installed; "
            + ("this project" if needs_git else 'source = "git" in [simpletuner]')
            + " needs it.",
            "Install it with your system's package manager, e.g. `sudo apt install git`.",
        )
    profile = _profile(facts)
    if profile and compiles(profile.options):
        if facts.missing_compiler:
            instead = f', or set [train] profile to "{profile.before}"' if profile.before else ""
            yield Finding(
                group,
                "problem",
                f'The profile "{profile.name}" compiles the model; missing: {", ".join(facts.missing_compiler)}.',
                f"{PACKAGES}{instead}.",
            )
        else:
            yield Finding(group, "ok", f'A C compiler, for the profile "{profile.name}"')
    if facts.uv:
        yield Finding(group, "ok", facts.uv)
    else:
        yield Finding(group, "problem", "uv is missing.", "Run `python -m pip install --force-reinstall uv`.")


def _profile(facts: Facts) -> Profile | None:
    try:
        release = facts.pin.version if facts.pin else None
        return load_profile(facts.project.config.train.profile, release) if facts.project else None
    except UserError:
        return None  # check_project says so
