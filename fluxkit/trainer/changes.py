"""What a changed setting does to a run that goes on from a checkpoint: a table, and the comparison with it.

A checkpoint carries the adapter's weights, the optimizer's and the scheduler's state, the random state and where each
dataset was. accelerate loads them as they are: where the shapes differ the run ends minutes after its start ("loaded
state dict contains a parameter group that doesn't match the size of optimizer's group", SimpleTuner #1497), and where
they are the same some new values are replaced by the checkpoint's without a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from packaging.version import Version

from fluxkit.trainer.runs import RunRecord
from fluxkit.trainer.schema import OptionSchema, canonical_name, plain_name


class Effect(Enum):
    """What a change means for a checkpoint made before it."""

    BREAKS = "breaks"
    IGNORED = "ignored"
    FINE = "fine"
    SILENT = "silent"  # where files lie: not worth a word


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Args:
        names: options, wildcards allowed; LyCORIS's as `lycoris.…`, the datasets' as `dataset.…`, variables of the
            trainer's process as `env.…`.
        effect: what a change does.
        reason: why, a sentence for the user.
        adapter: the only adapter that it holds for; empty for both.
        since: the first release that it holds for; empty for all.
    """

    names: tuple[str, ...]
    effect: Effect
    reason: str
    adapter: str = ""
    since: str = ""


@dataclass(frozen=True)
class SettingChange:
    """A setting that is not what the run was started with.

    Args:
        name: the option.
        old: its value in the run's frozen config; None where it was not set.
        new: its value now.
        effect: what that means.
        reason: why.
    """

    name: str
    old: Any
    new: Any
    effect: Effect
    reason: str

    def describe(self) -> str:
        """One line: name, values and reason."""
        old, new = ("not set" if value is None else value for value in (self.old, self.new))
        return f"{self.name}: {old} → {new}" + (f" ({self.reason})" if self.reason else "")


_SHAPE = "the checkpoint's weights have another shape"
_BASE = "the adapter was trained on another base"
_LAYOUT = "checkpoints are laid out otherwise"
_RESTORED = "the checkpoint's own value goes on"
# The first row that fits decides.
RULES: tuple[Rule, ...] = (
    Rule(("output_dir", "data_backend_config", "lycoris_config", "user_prompt_library"), Effect.SILENT, ""),
    Rule(("resume_from_checkpoint", "num_train_epochs", "webhook_*"), Effect.SILENT, ""),
    # Dropouts are drawn anew each step, and bypass_mode is another order of the same multiplications.
    Rule(("lycoris.*dropout*", "lycoris.bypass_mode"), Effect.FINE, "from here on"),
    Rule(("lycoris.*",), Effect.BREAKS, "the adapter is built otherwise than the checkpoint's"),
    Rule(("lora_type", "model_type"), Effect.BREAKS, "another kind of adapter"),
    Rule(("lora_rank", "lora_alpha", "flux_lora_target"), Effect.BREAKS, _SHAPE, adapter="standard"),
    Rule(("lora_rank", "lora_alpha", "flux_lora_target"), Effect.FINE, "not used with LyCORIS"),
    Rule(("use_dora", "lora_init_type", "lora_initialisation_style"), Effect.BREAKS, _SHAPE, adapter="standard"),
    Rule(("pretrained_model_name_or_path", "revision", "model_family", "model_flavour"), Effect.BREAKS, _BASE),
    Rule(("pretrained_transformer_*", "pretrained_unet_*"), Effect.BREAKS, _BASE),
    Rule(("base_model_precision",), Effect.BREAKS, "the adapter was trained against the base rounded otherwise"),
    Rule(("mixed_precision", "base_model_default_dtype"), Effect.BREAKS, "the optimizer's state is of another type"),
    Rule(("optimizer", "use_deepspeed_optimizer"), Effect.BREAKS, "the checkpoint holds another optimizer's state"),
    Rule(("lr_scheduler", "use_deepspeed_scheduler"), Effect.BREAKS, "the checkpoint holds another schedule's state"),
    Rule(("use_ema", "ema_*"), Effect.BREAKS, "the checkpoint's running mean is another, or there is none"),
    Rule(("deepspeed_config", "fsdp_*"), Effect.BREAKS, _LAYOUT),
    # "Dataset … checkpoint batch_size=… does not match current batch_size=…", from 4.7.1 on.
    Rule(("train_batch_size",), Effect.BREAKS, "SimpleTuner refuses a checkpoint of another batch size", since="4.7.1"),
    Rule(("train_batch_size", "gradient_accumulation_steps"), Effect.FINE, "images a step, from here on"),
    # Both the optimizer's and the scheduler's state carry it; a constant schedule alone is set anew (1.2.5 to 4.10.1).
    Rule(("learning_rate",), Effect.IGNORED, "the checkpoint's schedule goes on; only a constant one takes a new rate"),
    Rule(("optimizer_*", "adam_*", "prodigy_*"), Effect.IGNORED, _RESTORED),
    Rule(("seed",), Effect.IGNORED, "the checkpoint's random state goes on"),
    Rule(("max_train_steps",), Effect.FINE, "the learning rate's schedule is stretched to the new end"),
    Rule(("lr_warmup_steps", "lr_end", "lr_power", "lr_num_cycles"), Effect.FINE, "the schedule from here on"),
    # They win over what fluxkit gives the launcher.
    Rule(("env.MIXED_PRECISION",), Effect.BREAKS, "the optimizer's state is of another type"),
    Rule(("env.ACCELERATE_USE_FSDP", "env.FSDP_*", "env.ACCELERATE_USE_DEEPSPEED"), Effect.BREAKS, _LAYOUT),
    Rule(("env.*",), Effect.FINE, "the trainer's process has it from here on"),
    Rule(("dataset.*", "resolution", "resolution_type", "minimum_image_size"), Effect.FINE, "from here on"),
    Rule(("*",), Effect.FINE, ""),
)


def changed_settings(
    before: Mapping[str, Any], after: Mapping[str, Any], *, adapter: str, release: str, schema: OptionSchema
) -> list[SettingChange]:
    """Every setting that differs between a run's frozen documents and those rendered now, `SILENT` ones left out.

    Args:
        before: file name → document, as the run was started with.
        after: the same, as rendered now.
        adapter: `lycoris` or `standard`, now.
        release: the release that will continue.
        schema: its options: names of another release are compared by what it calls them.
    """
    old, new = (_flat(documents, schema) for documents in (before, after))
    found = []
    for name, was, now in _differing(old, new):
        rule = _rule(name, adapter, release)
        if name == "learning_rate" and str(new.get("lr_scheduler", "")).startswith("constant"):
            rule = Rule((name,), Effect.FINE, "from here on: the schedule is constant")
        if rule.effect is not Effect.SILENT:
            found.append(SettingChange(name, was, now, rule.effect, rule.reason))
    return found


def changed_launch(record: RunRecord, now: RunRecord, config: Mapping[str, Any]) -> list[SettingChange]:
    """How the processes differ that are launched: their number, the images a step, their variables.

    Args:
        record: of the run, as it was last launched.
        now: the same with today's `gpus`, `machines`, `batch_size`, `env` and `release`.
        config: the `config.json` rendered now.
    """
    found = []
    if record.processes != now.processes:
        found.append(SettingChange("processes", record.processes, now.processes, *_processes(config)))
    if record.batch_size and record.batch_size != now.batch_size:
        reason = "all GPUs and accumulation together"
        found.append(SettingChange("images a step", record.batch_size, now.batch_size, Effect.FINE, reason))
    if record.env is not None and now.env is not None:
        old, new = ({f"env.{name}": value for name, value in env.items()} for env in (record.env, now.env))
        for name, was, value in _differing(old, new):
            rule = _rule(name, now.adapter, now.release)
            found.append(SettingChange(name, was, value, rule.effect, rule.reason))
    return found


def _processes(config: Mapping[str, Any]) -> tuple[Effect, str]:
    options = {plain_name(name): value for name, value in config.items()}
    if options.get("fsdp_enable") or options.get("deepspeed_config"):
        return Effect.BREAKS, "the checkpoint is split among as many as it was saved by"
    # lr_scheduler.last_epoch counts steps × processes (helpers/training/trainer.py, 1.2 to 4.10.1).
    return Effect.FINE, "the photos' order is drawn anew, and a learning rate that follows a curve jumps"


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if not _same(was, now):
            yield name, was, now


def _rule(name: str, adapter: str, release: str) -> Rule:
    return next(
        rule
        for rule in RULES
        if any(fnmatchcase(name, pattern) for pattern in rule.names)
        and rule.adapter in ("", adapter)
        and (not rule.since or Version(release) >= Version(rule.since))
    )


def _flat(documents: Mapping[str, Any], schema: OptionSchema) -> dict[str, Any]:
    config = documents.get("config.json", {})
    flat = {canonical_name(plain_name(name), schema): value for name, value in config.items()}
    flat |= {f"lycoris.{name}": value for name, value in documents.get("lycoris_config.json", {}).items()}
    return flat | dict(_datasets(documents.get("multidatabackend.json", [])))


def _datasets(backends: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Each setting of the image backends, by resolution; ids and folders follow from them."""
    images = [backend for backend in backends if backend.get("dataset_type", "image") == "image"]
    yield "dataset.resolutions", [backend.get("resolution") for backend in images]
    for backend in images[:1]:
        for name, value in backend.items():
            if name not in ("id", "cache_dir_vae", "resolution", "dataset_type") and "size" not in name:
                yield f"dataset.{name}", value


def _same(old: Any, new: Any) -> bool:
    """Equal, or one as text of the other (releases differ in that), or the same folder in a project that was moved."""
    if old == new or (str(old) == str(new) and None not in (old, new)):
        return True
    if isinstance(old, bool | None) and isinstance(new, bool | None) and not old and not new:
        return True  # left out where false is the default
    paths = [Path(value) for value in (old, new) if isinstance(value, str) and value.startswith("/")]
    return len(paths) == 2 and paths[0].name == paths[1].name and not paths[0].exists()
