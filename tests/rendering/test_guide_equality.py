"""With SimpleTuner 1.2.5 and the trigger behitek, fluxkit renders what the guide writes by hand."""

from typing import Any

from fluxkit.rendering.render import render

# The guide's config.json, paths and the validation prompt aside.
GUIDE = {
    "resume_from_checkpoint": "latest",
    "aspect_bucket_rounding": 2,
    "seed": 42,
    "minimum_image_size": 0,
    "lora_type": "lycoris",
    "max_train_steps": 10000,
    "num_train_epochs": 0,
    "checkpointing_steps": 1000,
    "checkpoints_total_limit": 5,
    "hub_model_id": "simpletuner-lora",
    "push_to_hub": "false",
    "push_checkpoints_to_hub": "false",
    "tracker_project_name": "lora-training",
    "tracker_run_name": "simpletuner-lora",
    "report_to": "tensorboard",
    "model_type": "lora",
    "pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "model_family": "flux",
    "train_batch_size": 1,
    "gradient_checkpointing": "true",
    "caption_dropout_probability": 0.1,
    "resolution_type": "pixel_area",
    "resolution": 1024,
    "validation_seed": 42,
    "validation_steps": 1000,
    "validation_resolution": "1024x1024",
    "validation_guidance": 3.0,
    "validation_guidance_rescale": "0.0",
    "validation_num_inference_steps": "20",
    "mixed_precision": "bf16",
    "optimizer": "adamw_bf16",
    "learning_rate": "1e-4",
    "lr_scheduler": "polynomial",
    "lr_warmup_steps": 100,
    "validation_torch_compile": "false",
    "disable_benchmark": "false",
    "base_model_precision": "int8-quanto",
    "text_encoder_1_precision": "no_change",
    "text_encoder_2_precision": "no_change",
    "lora_rank": 16,
    "max_grad_norm": 1.0,
    "base_model_default_dtype": "bf16",
}
GUIDE_PATHS = {"data_backend_config", "output_dir", "lycoris_config", "user_prompt_library", "validation_prompt"}
# Each is explained beside its key in the template or the profile.
ADDED = {"grad_clip_method", "quantize_via"}


def _as_the_loader_reads(value: Any) -> Any:
    """1.2.5 makes arguments of the values: "true" is true, and "20" and 20 are the same text to argparse."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    try:
        return float(value)
    except ValueError:
        return value


def _config(request_for: Any) -> dict[str, Any]:
    lacking = {"offload_during_startup"}
    rendered = render(request_for(release="1.2.5"), accepts=lambda name: name not in lacking)
    document: Any = rendered.documents["config.json"]
    return {key.removeprefix("--"): value for key, value in document.items()}


def test_every_key_of_the_guide_has_its_value(request_for: Any) -> None:
    config = _config(request_for)
    ours = {key: _as_the_loader_reads(config[key]) for key in GUIDE}
    assert ours == {key: _as_the_loader_reads(value) for key, value in GUIDE.items()}


def test_no_key_but_the_guides_and_the_explained_ones(request_for: Any) -> None:
    assert set(_config(request_for)) == set(GUIDE) | GUIDE_PATHS | ADDED


def test_the_dataset_is_the_guides(request_for: Any) -> None:
    backends: Any = render(request_for(release="1.2.5")).documents["multidatabackend.json"]
    names = {"id", "cache_dir_vae", "cache_dir", "instance_data_dir"}
    ours = [{key: value for key, value in backend.items() if key not in names} for backend in backends]
    image = {
        "type": "local",
        "crop": True,
        "crop_style": "center",
        "crop_aspect": "square",
        "resolution_type": "pixel_area",
        "caption_strategy": "textfile",
        "instance_prompt": "behitek",
        "metadata_backend": "discovery",
        "is_regularisation_data": False,
        "repeats": 1000,
    }
    edges = ("resolution", "minimum_image_size", "maximum_image_size", "target_downsample_size")
    text = {"type": "local", "dataset_type": "text_embeds", "default": True, "disabled": False, "write_batch_size": 128}
    assert ours == [image | dict.fromkeys(edges, 1024), image | dict.fromkeys(edges, 512), text]


def test_the_lycoris_config_is_the_guides_lokr(request_for: Any) -> None:
    assert render(request_for(release="1.2.5")).documents["lycoris_config.json"] == {
        "algo": "lokr",
        "multiplier": 1.0,
        "full_matrix": True,
        "linear_alpha": 1,
        "factor": 16,
        "apply_preset": {
            "target_module": ["Attention", "FeedForward"],
            "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}},
        },
    }
