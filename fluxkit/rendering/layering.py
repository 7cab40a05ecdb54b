"""Which layers a file's settings have, and the closed list that a rehearsal replaces."""

from collections.abc import Mapping
from typing import Any

from packaging.version import Version

from fluxkit.rendering.profiles import ProfileSettings
from fluxkit.rendering.settings import COMMAND_LINE, PROJECT, REHEARSAL, RenderRequest, plain_options

_Layers = tuple[tuple[str, Mapping[str, Any]], ...]

# Enough to run the validation's code; the pictures of random weights show nothing.
_REHEARSAL_INFERENCE_STEPS = 2


def config_layers(request: RenderRequest, profile: ProfileSettings) -> _Layers:
    """The layers of `config.json`, weakest first.

    Raises:
        UserError: an option that a field of fluxkit owns.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"profile {profile.name}", profile.options),
        (f"{PROJECT} [train.options]", plain_options(request.user_options, f"{PROJECT} [train.options]")),
        (COMMAND_LINE, plain_options(request.cli_options, "-o")),
    ]
    if request.rehearsal is None:
        return tuple(layers)
    if not request.has_cuda:
        layers = [(origin, _for_cpu(values)) for origin, values in layers]
    return (*layers, (REHEARSAL, _rehearsed_options(request, layers)))


def lycoris_layers(request: RenderRequest, profile: ProfileSettings) -> _Layers:
    """The layers of `lycoris_config.json`, weakest first."""
    layers = ((f"profile {profile.name}", profile.lycoris), (f"{PROJECT} [lycoris]", request.lycoris))
    if request.rehearsal is None or request.has_cuda or profile.options.get("base_model_precision") != "nf4-bnb":
        return layers
    # bypass_mode is there for nf4's packed weights, which a rehearsal without CUDA replaces by int8.
    return tuple((origin, {k: v for k, v in values.items() if k != "bypass_mode"}) for origin, values in layers)


def dataset_layers(request: RenderRequest, profile: ProfileSettings) -> _Layers:
    """The layers of an image backend, weakest first."""
    layers = ((f"profile {profile.name}", profile.dataset),)
    if request.rehearsal is None:
        return layers
    # `pixel`: the areas of `pixel_area` are megapixels, and a 64-pixel picture has none to speak of. That mode wants
    # maximum_image_size >= 512, so the template leaves it out in a rehearsal.
    edge = request.rehearsal.resolution
    return (*layers, (REHEARSAL, {"resolution_type": "pixel", "resolution": edge, "minimum_image_size": edge}))


def environment_of(request: RenderRequest, profile: ProfileSettings) -> dict[str, str]:
    """What the profile sets for the trainer's process."""
    if request.rehearsal is None or request.has_cuda:
        return dict(profile.env)
    return {name: value for name, value in profile.env.items() if name != "TRAINING_DYNAMO_BACKEND"}


def resolutions_of(request: RenderRequest) -> tuple[int, ...]:
    """The edges of the image backends, in pixels; a rehearsal has one small one."""
    return request.resolutions if request.rehearsal is None else (request.rehearsal.resolution,)


def _rehearsed_options(request: RenderRequest, layers: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    rehearsal = request.rehearsal
    if rehearsal is None:
        return {}
    renamed = Version(request.release) >= Version("3.0.2")
    options: dict[str, Any] = {
        "pretrained_model_name_or_path": str(rehearsal.base),
        "resolution_type": "pixel",
        "resolution": rehearsal.resolution,
        "max_train_steps": rehearsal.steps,
        "lr_warmup_steps": 0,  # as many warm-up steps as steps divide by zero, and more of them train next to nothing
        "checkpoint_step_interval" if renamed else "checkpointing_steps": rehearsal.checkpoint_every,
        "validation_step_interval" if renamed else "validation_steps": rehearsal.checkpoint_every,
        "validation_resolution": f"{rehearsal.resolution}x{rehearsal.resolution}",
        "validation_num_inference_steps": _REHEARSAL_INFERENCE_STEPS,
    }
    precision = next((v["base_model_precision"] for _, v in reversed(layers) if "base_model_precision" in v), None)
    if precision == "nf4-bnb" and not request.has_cuda:
        options["base_model_precision"] = "int8-quanto"  # bitsandbytes wants a GPU
    return options


def _for_cpu(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a GPU can do, and without compiling, which takes minutes on a CPU and proves nothing there."""
    return {
        k: v for k, v in values.items() if (k, v) != ("quantize_via", "accelerator") and not k.startswith("dynamo_")
    }
