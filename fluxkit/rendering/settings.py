"""What a run is set to, and where each setting came from: defaults < profile < project < command line < rehearsal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fluxkit.errors import UserError
from fluxkit.rendering.profiles import ProfileSettings

DEFAULT = "default"
PROJECT = "fluxkit.toml"
COMMAND_LINE = "command line"
REHEARSAL = "rehearsal"


@dataclass(frozen=True)
class Setting:
    """A value and the layer it came from (`default`, `profile 24gb`, `fluxkit.toml …`, `command line`, `rehearsal`)."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal replaces, all of it.

    Args:
        base: folder of the tiny random-weight FLUX.
        steps: optimizer steps.
        checkpoint_every: steps between checkpoints, and between validation images.
        resolution: edge of training and validation images, in pixels.
    """

    base: Path
    steps: int = 4
    checkpoint_every: int = 2
    resolution: int = 64


@dataclass(frozen=True)
class KnownDefect:
    """An option's value that the pinned release takes and then fails on.

    Args:
        option: the option.
        value: the value; None for any.
        replacement: what a default becomes; None where there is none to be had.
        reason: what happens, a sentence for the user.
    """

    option: str
    value: Any
    replacement: Any
    reason: str


@dataclass(frozen=True)
class RenderRequest:
    """Everything that the rendered files depend on, as plain data; paths are absolute.

    Args:
        release: the pinned SimpleTuner release.
        trigger: the unique word for the subject.
        dataset_dir: the photos.
        resolutions: edges of the square crops, in pixels, one image backend each.
        repeats: how often an epoch shows a photo again.
        captions: from text files beside the photos, or the trigger alone.
        base: a Hub id or a local folder in diffusers format.
        adapter: LyCORIS, or a standard LoRA.
        profile: the VRAM class.
        steps: optimizer steps.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validation images.
        seed: of training and of validation images.
        learning_rate: the highest of the schedule.
        validation_prompt: None takes the first of `prompts` that the trainer can be given as an option.
        prompts: the prompt library, by name.
        user_options: `[train.options]`, SimpleTuner's names, `--` or not.
        cli_options: `-o`, likewise.
        lycoris: `[lycoris]`.
        env: `[env]`.
        cache_dir: where VAE and text caches go.
        output_dir: the trainer's output folder.
        config_dir: where the rendered files will lie; they name each other by it.
        rehearsal: what is replaced, or None for the real thing.
        has_cuda: whether the trainer will see a CUDA GPU.
        revision: of the Hub id.
        dataset_digest: a hash of the photos' contents where it is known: a changed photo must not meet its old latents.
        defects: what the pinned release is known to fail on.
        candidate: settings to measure instead of the profile's; for benchmarks alone.
    """

    release: str
    trigger: str
    dataset_dir: Path
    resolutions: tuple[int, ...]
    repeats: int
    captions: Literal["textfile", "trigger"]
    base: str
    adapter: Literal["lycoris", "standard"]
    profile: str
    steps: int
    checkpoint_every: int
    validate_every: int
    seed: int
    learning_rate: float
    validation_prompt: str | None
    prompts: Mapping[str, str]
    user_options: Mapping[str, Any]
    cli_options: Mapping[str, Any]
    lycoris: Mapping[str, Any]
    env: Mapping[str, str]
    cache_dir: Path
    output_dir: Path
    config_dir: Path
    rehearsal: Rehearsal | None
    has_cuda: bool
    revision: str | None = None
    dataset_digest: str = ""
    defects: tuple[KnownDefect, ...] = ()
    candidate: ProfileSettings | None = None


# SimpleTuner's options that a field of fluxkit owns: set twice, they could disagree.
OWNED = {
    "max_train_steps": "[train] steps",
    "num_train_epochs": "[train] steps",
    "checkpoint_step_interval": "[train] checkpoint_every",
    "checkpointing_steps": "[train] checkpoint_every",
    "validation_step_interval": "[train] validate_every",
    "validation_steps": "[train] validate_every",
    "seed": "[train] seed",
    "validation_seed": "[train] seed",
    "learning_rate": "[train] learning_rate",
    "validation_prompt": "[train] validation_prompt",
    "user_prompt_library": "prompts.toml",
    "pretrained_model_name_or_path": "[model] base",
    "revision": "[model] revision",
    "lora_type": "[model] adapter",
    "model_type": "[model] adapter",
    "model_family": "[model] base",
    "lycoris_config": "[lycoris]",
    "data_backend_config": "[dataset]",
    "instance_data_dir": "[dataset] path",
    "resolution": "[dataset] resolutions",
    "resolution_type": "[dataset] resolutions",
    "caption_strategy": "[dataset] captions",
    "instance_prompt": "[project] trigger",
    "output_dir": "the run's own folder, runs/<id>",
    "resume_from_checkpoint": "`fluxkit train`, which resumes by itself, and its --fresh",
}


def plain_options(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options with bare names; those that a field of fluxkit owns, and values that JSON can't carry, are refused.

    Args:
        options: as the user wrote them, with or without `--`.
        where: the place they were written, for the message.

    Raises:
        UserError: naming every such option at once.
    """
    plain = {name.strip().lstrip("-").replace("-", "_"): value for name, value in options.items()}
    problems = [f'"{name}" belongs to {OWNED[name]}.' for name in plain if name in OWNED]
    problems += [f'"{name}" has no value.' for name, value in plain.items() if value is None]
    if problems:
        raise UserError(f"{where}: " + " ".join(problems), fix="Set it there, and take the option out.")
    return plain


@dataclass
class Layers:
    """Layers of settings, later ones stronger; the template asks for each of its keys, which records the origin.

    Args:
        layers: origin and settings, weakest first.
        used: what was asked for so far.
    """

    layers: tuple[tuple[str, Mapping[str, Any]], ...]
    used: dict[str, Setting] = field(default_factory=dict)

    def option(self, name: str, default: Any, origin: str = DEFAULT) -> Any:
        """The value of `name`, `default` being the weakest layer; tables are merged key by key."""
        setting = Setting(default, origin)
        for layer, values in self.layers:
            if name in values:
                setting = Setting(_merge(setting.value, values[name]), layer)
        self.used[name] = setting
        return setting.value

    def rest(self) -> Iterator[tuple[str, Any]]:
        """What the layers hold beyond what was asked for, in their order."""
        names = dict.fromkeys(name for _, values in self.layers for name in values)
        for name in [name for name in names if name not in self.used]:
            yield name, self.option(name, None)


def _merge(weaker: Any, stronger: Any) -> Any:
    if isinstance(weaker, Mapping) and isinstance(stronger, Mapping):
        return {**weaker, **{key: _merge(weaker.get(key), value) for key, value in stronger.items()}}
    return stronger
