"""Why training stops, as data: what each failure looks like in a log, what it means, and what to do next.

Each pattern is a message of the program named beside it, as it was printed or as it is in that program's source. The
order matters where a line fits two rows. `failures.py` does the reading.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fluxkit.trainer.compiler import PACKAGES

TRAINER_FAILED = 3
OUT_OF_MEMORY = 5


@dataclass(frozen=True)
class Cause:
    """One row of the table.

    Args:
        name: a short name, also in `docs/failures.md`.
        pattern: what a line of the log holds.
        message: what is wrong, in one sentence; `{…}` are groups of the pattern.
        fix: what to do next.
        exit_code: 5 where memory ran out, else 3.
        by_phase: word in a phase's name → what to do when it happened there, instead of `fix`.
    """

    name: str
    pattern: re.Pattern[str]
    message: str
    fix: str
    exit_code: int = TRAINER_FAILED
    by_phase: Mapping[str, str] = field(default_factory=dict)


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts))


# What each phase needs was measured for `profiles/` and is in docs/profiles.md.
_GPU_FIXES = {
    "caption": 'Close what else uses the GPU, or set text_encoder_2_precision = "int8-quanto" in [train.options].',
    "latent": "Set vae_batch_size = 1 in [train.options]: at 1024 pixels it takes 2 GiB instead of 18.",
    "quanti": 'Set quantize_via = "cpu" in [train.options].',
    "base model": 'Choose a smaller [train] profile, or set quantize_via = "cpu" in [train.options].',
    "validation": "Make validation images smaller, validation_resolution = \"512x512\" in [train.options], or choose a "
    "smaller [train] profile.",
}  # fmt: skip

CAUSES: tuple[Cause, ...] = (
    Cause(
        "gpu-memory",
        # torch: `torch.OutOfMemoryError: CUDA out of memory. Tried to allocate …`; then CUDA, bitsandbytes, cuBLAS.
        _any(
            r"(?:CUDA|HIP|XPU) out of memory\.(?: Tried to allocate (?P<wanted>[\d.]+ \w+)\.)?"
            r"(?: GPU \d+ has a total capacity of (?P<total>[\d.]+ \w+))?",
            r"CUDA error: out of memory",
            r"Error out of memory at line \d+ in file",
            r"CUBLAS_STATUS_ALLOC_FAILED",
        ),
        "The GPU's memory is not enough.",
        "Choose a smaller [train] profile, or train smaller: [dataset] resolutions = [512].",
        OUT_OF_MEMORY,
        _GPU_FIXES,
    ),
    Cause(
        "host-memory",
        # torch's c10: `DefaultCPUAllocator: can't allocate memory: you tried to allocate …`; Python; the C library.
        _any(
            r"DefaultCPUAllocator: (?:can't allocate|not enough) memory",
            r"^MemoryError\b",
            r"\[Errno 12\] Cannot allocate memory",
        ),
        "The computer's memory (RAM) is not enough.",
        "Close other programs, or add swap: quantizing the base model on the CPU takes about 22 GiB. With enough GPU "
        'memory quantize_via = "accelerator" in [train.options] takes less RAM.',
        OUT_OF_MEMORY,
    ),
    Cause(
        "no-compiler",
        # Triton's build.py: `RuntimeError: Failed to find C compiler. Please specify via CC environment variable …`;
        # gcc: `fatal error: Python.h: No such file or directory`.
        _any(r"Failed to find C compiler", r"fatal error: '?Python\.h'?(?:: No such file| file not found)"),
        "The profile compiles parts of the model, and this machine lacks a C compiler or Python's headers.",
        f'{PACKAGES}, or set [train] profile to one that compiles nothing (12gb: "12gb-nf4").',
    ),
    Cause(
        "shared-memory",
        # torch.utils.data: `DataLoader worker (pid …) is killed by signal: Bus error. It is possible that …`
        _any(r"is killed by signal: Bus error", r"unable to (?:open|mmap) (?:file|shared memory object) </?torch_"),
        "The container has too little shared memory (/dev/shm).",
        "Start the container with --shm-size=8g or --ipc=host.",
    ),
    Cause(
        "disk-full",
        # The C library's errno 28 and 122, as Python, Rust (safetensors) and torch's zip writer tell it.
        _any(
            r"No space left on device",
            r"no space left on device",
            r"\[Errno 122\] Disk quota exceeded",
            r"PytorchStreamWriter failed writing file",
            r"inline_container\.cc:\d+\] \. unexpected pos \d+ vs \d+",
        ),
        "The disk is full.",
        "Free some space (`fluxkit doctor` says how much is left where), then `fluxkit train` continues: what was half "
        "written is passed over.",
    ),
    Cause(
        "gated-model",
        # huggingface_hub: `GatedRepoError: 403 Client Error. … Cannot access gated repo for url …`; transformers:
        # `You are trying to access a gated repo.`
        _any(
            r"GatedRepoError",
            r"Cannot access gated repo for url (?:\S+?/(?:api/models/)?(?P<model>[\w.-]+/[\w.-]+))?",
            r"You are trying to access a gated repo",
            r"Access to model (?P<other>\S+) is restricted",
            r"is a gated repository\. Make sure to request access",
        ),
        "The base model's owner has not given this account access to it.",
        "Accept the licence on the model's page at huggingface.co (FLUX.1-dev has one), then log in: `hf auth login`.",
    ),
    Cause(
        "bad-token",
        # huggingface_hub: 401 answers.
        _any(r"401 Client Error", r"Invalid user token", r"Invalid username or password"),
        "The model hub does not accept this computer's token.",
        "Log in again: `hf auth login`; HF_TOKEN in the environment comes first, if it is set.",
    ),
    Cause(
        "no-such-model",
        # huggingface_hub: `Repository Not Found for url: …`, `Revision Not Found for url`; transformers and diffusers:
        # `… is not a local folder and is not a valid model identifier listed on …`
        _any(
            r"(?:Repository|Revision|Entry) Not Found for url",
            r"is not a local folder and is not a valid model identifier",
        ),
        "The base model, or the revision of it, is not on the hub.",
        "Check [model] base and revision in fluxkit.toml.",
    ),
    Cause(
        "hub-unreachable",
        # transformers, diffusers: `We couldn't connect to 'https://huggingface.co' to load …`; huggingface_hub offline.
        _any(
            r"We couldn't connect to '?https?://",
            r"LocalEntryNotFoundError",
            r"outgoing traffic has been disabled",
            r"Temporary failure in name resolution",
            r"Max retries exceeded with url",
        ),
        "A file of the base model is not on this computer, and the model hub can't be reached.",
        "Check the network, or set [model] base to a folder with the whole model.",
    ),
    Cause(
        "driver",
        # torch: `The NVIDIA driver on your system is too old (found version …)`; the CUDA runtime's own messages.
        _any(
            r"The NVIDIA driver on your system is too old",
            r"CUDA driver version is insufficient for CUDA runtime version",
            r"forward compatibility was attempted on non supported HW",
            r"system has unsupported display driver / cuda driver combination",
            r"Driver/library version mismatch",
        ),
        "The NVIDIA driver is older than the trainer's PyTorch needs.",
        "Update the driver and restart the computer. `fluxkit doctor` names both versions.",
    ),
    Cause(
        "gpu-unsupported",
        # The CUDA runtime.
        _any(r"no kernel image is available for execution on the device"),
        "The trainer's PyTorch was not built for this GPU.",
        "A newer SimpleTuner brings a newer PyTorch: `fluxkit upgrade`. `fluxkit doctor` names what it was built for.",
    ),
    Cause(
        "no-gpu",
        # torch.
        _any(
            r"Found no NVIDIA driver on your system",
            r"No CUDA GPUs are available",
            r"Torch not compiled with CUDA enabled",
            r"CUDA unknown error - this may be due to an incorrectly set up environment",
        ),
        "The trainer sees no NVIDIA GPU.",
        "Run `nvidia-smi`: if it fails, install or update the driver; in a container, start it with --gpus all. Check "
        "CUDA_VISIBLE_DEVICES, and run `fluxkit doctor`.",
    ),
    Cause(
        "port",
        # torch.distributed: `… has failed to bind to [::]:29500`, `EADDRINUSE`; Python; accelerate.
        _any(
            r"EADDRINUSE",
            r"\[Errno 98\] Address already in use",
            r"Tried to launch distributed communication on port `?(?P<port>\d+)",
            r"The server socket has failed to (?:listen|bind)",
        ),
        "A network port that the trainer needs is used by another program.",
        "Another training may still be running: end it, or wait for it.",
    ),
    Cause(
        "no-images",
        # SimpleTuner: 3.0.6 and later; 1.2; 3.0.6 and later.
        _any(
            r"Dataset produced no usable samples",
            r"No images were discovered by the bucket manager",
            r"will produce zero usable batches",
            r"No images found in the dataset",
        ),
        "No photo is left to train on: they are too few or too small for these settings.",
        "`fluxkit validate` shows which photos are used and why others are not. A smaller train_batch_size or more "
        "[dataset] repeats help where they are few.",
    ),
    Cause(
        "checkpoint",
        # torch's zip reader and optimizer, accelerate's order of loading; SimpleTuner 4.7.1.
        _any(
            r"PytorchStreamReader failed",
            r"doesn't match the size of optimizer's group",
            r"checkpoint batch_size=\S+ does not match",
            r"size mismatch for lycoris_",
        ),
        "The checkpoint can't be loaded.",
        "Run `fluxkit train` again: damaged checkpoints are passed over. If it stays so, `fluxkit train --fresh`.",
        by_phase={"latent": "A cached file is damaged: delete the project's cache/vae folder; it is made anew."},
    ),
    Cause(
        "damaged-file",
        # safetensors: `SafetensorError: Error while deserializing header: …`
        _any(r"Error while deserializing header", r"MetadataIncompleteBuffer", r"InvalidHeaderDeserialization"),
        "A file of weights is damaged, probably by a download that broke off.",
        "Delete the base model from the hub's cache or copy its folder again, then run the same command.",
    ),
    Cause(
        "nan",
        # SimpleTuner's collate: `(id=…) Deleted cache file …: contains NaN or Inf values`
        _any(r"contains NaN or Inf values"),
        "A photo's latents are not numbers (NaN).",
        "Run `fluxkit train` again: the file was removed and is made anew. If it comes back, `fluxkit validate` may "
        "name the photo.",
    ),
    Cause(
        "no-modules",
        # torch: `optimizer got an empty parameter list`: LyCORIS matched no module of the base model.
        _any(r"optimizer got an empty parameter list"),
        "The adapter found nothing in the base model to attach to.",
        "Check [lycoris] apply_preset in fluxkit.toml; without it the settings are known to work.",
    ),
    Cause(
        "options",
        # argparse, as each release's parser prints it.
        _any(r"error: unrecognized arguments: (?P<what>.+)", r"error: argument (?P<argument>\S+): "),
        "SimpleTuner does not take one of its options.",
        "`fluxkit render` shows them all; the one named is in [train.options] or the profile.",
    ),
    Cause(
        "trackers",
        # SimpleTuner 4.9.3 and later with TensorBoard, found in its rehearsal.
        _any(r"value should be one of int, float, str, bool, or torch\.Tensor"),
        "This SimpleTuner can't start its TensorBoard log.",
        'Set report_to = "none" in [train.options].',
    ),
    Cause(
        "import",
        # Python's own; a library that was built for another one (the dynamic linker).
        _any(
            r"ModuleNotFoundError: No module named '(?P<module>[^']+)'",
            r"ImportError: cannot import name '(?P<name>[^']+)'",
            r"undefined symbol: ",
            r"(?P<library>\S+): cannot open shared object file",
        ),
        "The trainer's environment is not complete.",
        "Run `fluxkit install --check`: it looks at every file and installs again what is not as it was.",
    ),
    Cause(
        "open-files",
        _any(r"\[Errno 24\] Too many open files"),  # the C library's errno 24
        "The system allows too few open files.",
        "Run `ulimit -n 65536` in this terminal, then the same command.",
    ),
    Cause(
        "permission",
        _any(r"PermissionError: \[Errno 13\] Permission denied: (?P<path>.+)"),  # Python, the C library's errno 13
        "A file or folder may not be written.",
        "Check whom it belongs to: a run as root or in a container may have made it.",
    ),
)  # fmt: skip

# The kernel ends the largest process when memory runs out: accelerate then prints `died with <Signals.SIGKILL: 9>`,
# torchrun `Signal 9 (SIGKILL) received by PID …`, a shell `Killed`.
KILLED = _any(r"died with <Signals\.SIGKILL", r"Signal 9 \(SIGKILL\) received by PID", r"line \d+:\s+\d+ Killed\b")
CRASHED = re.compile(r"died with <Signals\.SIG(?P<signal>SEGV|BUS|ILL|FPE|ABRT)")
DISK_FULL = next(cause for cause in CAUSES if cause.name == "disk-full")
HOST_MEMORY = next(cause for cause in CAUSES if cause.name == "host-memory")
