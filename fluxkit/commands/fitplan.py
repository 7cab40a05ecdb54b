"""From a project to what is asked of a machine, and to what this machine has: what `fit` and `train` share."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import Assembled, assemble
from fluxkit.commands.validate import dataset_rules
from fluxkit.dataset.model import DatasetReport
from fluxkit.dataset.preview import preview_training
from fluxkit.fitting.adapter import lokr_parameters, lora_parameters
from fluxkit.fitting.model import DiskSpace, Machine, TrainingPlan
from fluxkit.hardware import container_limit, gpus, host_memory, training_card
from fluxkit.hub import cached_bytes, hub_cache_dir, transformer_config
from fluxkit.project.config import FLUX_DEV
from fluxkit.project.load import Project
from fluxkit.rendering.profiles import load_profile
from fluxkit.rendering.settings import Setting
from fluxkit.trainer.schema import OptionSchema
from fluxkit.trainer.uv import existing

MODEL_BYTES = 33.3e9  # FLUX.1-dev in diffusers format
_FULL_SIZE = (19, 38)
# What changes neither memory nor speed: names, places, texts, seeds, schedules, how often and how much of a run.
_HARMLESS = {
    "resume_from_checkpoint", "data_backend_config", "lycoris_config", "user_prompt_library", "output_dir", "seed",
    "max_train_steps", "num_train_epochs", "checkpoint_step_interval", "checkpointing_steps", "checkpoints_total_limit",
    "validation_step_interval", "validation_steps", "validation_prompt", "validation_negative_prompt",
    "validation_guidance", "validation_guidance_rescale", "validation_num_inference_steps", "validation_seed",
    "hub_model_id", "push_to_hub", "push_checkpoints_to_hub", "report_to", "tracker_project_name", "tracker_run_name",
    "learning_rate", "lr_scheduler", "lr_warmup_steps", "lr_end", "lr_power", "caption_dropout_probability",
    "max_grad_norm", "grad_clip_method", "gradient_accumulation_steps", "disable_benchmark", "webhook_config",
    "pretrained_model_name_or_path", "revision", "model_flavour", "minimum_image_size", "aspect_bucket_rounding",
}  # fmt: skip
# Of an image backend only its sizes matter, and they are the project's resolutions.
_HARMLESS_GROUPS = ("dataset.", "env.HF_", "env.WANDB_", "env.FLUXKIT_")
# What the plan holds by itself.
_PLANNED = {"train_batch_size", "validation_resolution", "validation_disable", "resolution", "lora_rank"}


def assemble_plain(project: Project) -> Assembled:
    """The project without what its owner set beyond the profile: what the profile's measurement speaks of."""
    train = project.config.train.model_copy(update={"options": {}})
    config = project.config.model_copy(update={"train": train, "lycoris": {}, "env": {}})
    folder = project.cache_dir / "fit"
    return assemble(
        replace(project, config=config), config_dir=folder / "config", output_dir=folder / "output", rehearsal=None
    )


def training_plan(
    project: Project, assembled: Assembled, plain: Assembled, schema: OptionSchema, report: DatasetReport
) -> TrainingPlan:
    """What the assembled project asks of a machine.

    Args:
        project: the project.
        assembled: as it will be trained.
        plain: from `assemble_plain`.
        schema: the pinned release's options.
        report: the checked dataset.
    """
    settings = assembled.rendered.settings
    request = assembled.request
    edge = _validation_edge(settings)
    parameters = _parameters(assembled)
    limit = _number(settings, "checkpoints_total_limit", 5)
    made = request.steps // request.checkpoint_every
    return TrainingPlan(
        profile=load_profile(request.profile, assembled.release.version),
        release=assembled.release.version,
        resolutions=request.resolutions,
        batch_size=_number(settings, "train_batch_size", 1),
        validation_edge=edge,
        adapter_parameters=parameters,
        unmeasured=tuple(_unmeasured(project, assembled, plain, counted=parameters is not None)),
        # One more than are kept: the oldest goes when the newest is there. And the final weights.
        checkpoints=min(made, limit + 1) + 1,
        cache_bytes=_cache_bytes(project, report),
        model_bytes=_model_bytes(request.base),
        can_skip_validation=schema.find("validation_disable") is not None,
    )


def machine(project: Project, count: int = 1) -> Machine:
    """What this machine has now; the GPU is the smallest of those that a trainer started from here uses."""
    found = gpus(details=True)
    card = training_card()
    folders = {"the project": project.root, "the model": hub_cache_dir()}
    return Machine(
        gpu=min(found[card : card + count], key=lambda gpu: (gpu.memory_bytes, gpu.free_bytes), default=None),
        memory=host_memory(),
        limit=container_limit(),
        disks={use: disk_space(folder) for use, folder in folders.items()},
    )


def measured_settings(assembled: Assembled) -> dict[str, Any]:
    """The settings that memory and speed depend on, for the name that a measurement is kept under."""
    found = {name: value for name, value in _values(assembled.rendered.settings).items() if not _harmless(name)}
    return found | {"resolutions": sorted(assembled.request.resolutions), "base": assembled.request.base}


def _unmeasured(project: Project, assembled: Assembled, plain: Assembled, *, counted: bool) -> Iterator[str]:
    mine, theirs = (_values(one.rendered.settings) for one in (assembled, plain))
    for name in dict.fromkeys((*mine, *theirs)):
        known = _harmless(name) or name in _PLANNED or (counted and name.startswith("lycoris."))
        if mine.get(name) != theirs.get(name) and not known:
            yield f"{name} = {mine[name]!r}" if name in mine else f"no {name}"
    if not _is_full_flux(project, assembled.request.base):
        yield f"base = {project.config.model.base!r}"


def _is_full_flux(project: Project, base: str) -> bool:
    """Whether the base has FLUX.1-dev's size: by its config, or by its name where it is not downloaded yet."""
    config = transformer_config(base, project.config.model.revision)
    if config is None:
        return base == FLUX_DEV
    # Absent keys have FLUX.1-dev's values.
    size = config.get("num_layers", _FULL_SIZE[0]), config.get("num_single_layers", _FULL_SIZE[1])
    width = config.get("num_attention_heads", 24), config.get("attention_head_dim", 128)
    return (size, width) == (_FULL_SIZE, (24, 128))


def _parameters(assembled: Assembled) -> int | None:
    lycoris: Any = assembled.rendered.documents.get("lycoris_config.json")
    if lycoris is not None:
        return lokr_parameters(lycoris)
    settings = assembled.rendered.settings
    target = settings.get("flux_lora_target", Setting("all", "")).value
    return lora_parameters(_number(settings, "lora_rank", 16), str(target))


def _validation_edge(settings: Mapping[str, Setting]) -> int | None:
    if settings.get("validation_disable", Setting(False, "")).value is True:
        return None
    # "1024x1024", "1024", or several with commas: the longest edge decides.
    text = str(settings["validation_resolution"].value) if "validation_resolution" in settings else ""
    edges = [int(edge) for size in text.lower().split(",") for edge in size.strip().split("x") if edge.isdigit()]
    return max(edges, default=1024)


def _cache_bytes(project: Project, report: DatasetReport) -> int:
    preview = preview_training(report.images, dataset_rules(project.config))
    there = sum(path.stat().st_size for kind in ("vae", "text") for path in _files(project.cache_dir / kind))
    return max(0, preview.vae_bytes + preview.text_bytes - there)


def _files(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _model_bytes(base: str) -> int:
    if base != FLUX_DEV:  # a folder is there, and the size of another model isn't known
        return 0
    missing = MODEL_BYTES - cached_bytes(base)
    return int(missing) if missing > MODEL_BYTES / 10 else 0  # the Hub's copy has been a little larger or smaller


def disk_space(folder: Path) -> DiskSpace:
    """What is free on the disk where the folder is, or will be."""
    there = existing(folder.absolute())
    return DiskSpace(there, there.stat().st_dev, shutil.disk_usage(there).free)


def _values(settings: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: setting.value for name, setting in settings.items()}


def _harmless(name: str) -> bool:
    return name in _HARMLESS or name.startswith(_HARMLESS_GROUPS)


def _number(settings: Mapping[str, Setting], name: str, default: int) -> int:
    value = settings[name].value if name in settings else default
    return value if isinstance(value, int) and value > 0 else default
