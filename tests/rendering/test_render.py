import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fluxkit.errors import UserError
from fluxkit.rendering.profiles import profile_names
from fluxkit.rendering.rehearsal import rehearsal_changes
from fluxkit.rendering.render import diff_rendered, expected_modules, render, write_rendered
from fluxkit.rendering.settings import Rehearsal
from fluxkit.resources import resource

TINY = Rehearsal(Path("/tiny"))


def _config(rendered: Any) -> dict[str, Any]:
    return {key.removeprefix("--"): value for key, value in rendered.documents["config.json"].items()}


@pytest.mark.parametrize("profile", ["12gb", "24gb"])
@pytest.mark.parametrize("release", ["1.2.5", "4.8.0"])
@pytest.mark.parametrize("rehearsal", [None, TINY])
def test_every_profile_renders_for_every_release(request_for: Any, profile: str, release: str, rehearsal: Any) -> None:
    rendered = render(request_for(profile=profile, release=release, rehearsal=rehearsal))
    assert list(rendered.documents) == [
        "config.json",
        "multidatabackend.json",
        "lycoris_config.json",
        "user_prompt_library.json",
    ]
    assert None not in _config(rendered).values()


@pytest.mark.parametrize("profile", profile_names())
@pytest.mark.parametrize("release", ["1.2.5", "4.8.0"])
def test_every_option_is_in_the_releases_schema(request_for: Any, profile: str, release: str) -> None:
    options = json.loads(resource("third_party", "simpletuner", "schemas", f"{release}.json").read_text())["options"]
    known = {alias.lstrip("-") for name, option in options.items() for alias in (name, *option.get("aliases", []))}
    rendered = render(request_for(profile=profile, release=release), accepts=known.__contains__)
    assert set(_config(rendered)) - known == set()


def test_todays_names_and_the_moved_defaults(request_for: Any) -> None:
    config = _config(render(request_for()))
    expected = {
        "checkpoint_step_interval": 1000,
        "validation_step_interval": 1000,
        "model_flavour": "dev",
        "num_train_epochs": 0,
        "grad_clip_method": "norm",
        "max_grad_norm": 1.0,
        "report_to": "tensorboard",
        "gradient_checkpointing": True,
        "quantize_via": "cpu",
        "offload_during_startup": True,
    }
    assert {key: config.get(key) for key in expected} == expected
    gone = {"checkpointing_steps", "validation_steps", "validation_torch_compile", "push_to_hub", "hub_model_id"}
    assert gone & set(config) == set()


def test_the_flavour_is_left_to_upstream_for_another_hub_model(request_for: Any) -> None:
    assert "model_flavour" not in _config(render(request_for(base="someone/other-flux")))


@pytest.mark.parametrize("release", ["1.2.5", "4.8.0"])
def test_prompts_arrive_unchanged(request_for: Any, release: str, tmp_path: Path) -> None:
    prompts = {"odd": 'behitek says "{{ hi }}"\n{% if %} <b>&amp; it\'s 🎨 \\ {#', "plain": "behitek"}
    rendered = render(request_for(release=release, prompts=prompts))
    write_rendered(rendered, tmp_path)
    assert json.loads((tmp_path / "user_prompt_library.json").read_text(encoding="utf-8")) == prompts
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["--validation_prompt"] == prompts["odd"]


@pytest.mark.parametrize("prompt", ["true", " False ", "behitek {env:HOME}", " "])
def test_a_validation_prompt_that_would_be_read_as_something_else_is_refused(request_for: Any, prompt: str) -> None:
    with pytest.raises(UserError, match="validation prompt"):
        render(request_for(validation_prompt=prompt))


def test_such_a_prompt_stays_in_the_library_and_the_next_one_validates(request_for: Any) -> None:
    prompts = {"a": "true", "b": "behitek"}
    rendered = render(request_for(prompts=prompts))
    assert rendered.documents["user_prompt_library.json"] == prompts
    assert _config(rendered)["validation_prompt"] == "behitek"


def test_an_environment_placeholder_in_a_path_is_refused(request_for: Any) -> None:
    with pytest.raises(UserError, match=r"multidatabackend\.json"):
        render(request_for(dataset_dir=Path("/photos/{env:HOME}")))


def test_settings_know_where_they_came_from(request_for: Any) -> None:
    request = request_for(
        user_options={"quantize_via": "accelerator", "lora_rank": 8},
        cli_options={"--lora_rank": 4},
        env={"A": "b"},
    )
    rendered = render(request)
    origins = {name: (setting.value, setting.origin) for name, setting in rendered.settings.items()}
    assert origins["optimizer"] == ("adamw_bf16", "default")
    assert origins["offload_during_startup"] == (True, "profile 24gb")
    assert origins["quantize_via"] == ("accelerator", "fluxkit.toml [train.options]")
    assert origins["lora_rank"] == (4, "command line")
    assert origins["max_train_steps"] == (10000, "fluxkit.toml [train] steps")
    assert origins["dataset.resolution"] == ((1024, 512), "fluxkit.toml [dataset] resolutions")
    assert rendered.env == {"A": "b"}
    assert _config(rendered)["lora_rank"] == 4


@pytest.mark.parametrize("field", ["user_options", "cli_options"])
def test_owned_options_are_refused_with_their_field(request_for: Any, field: str) -> None:
    with pytest.raises(UserError, match=r"\[train\] steps.*\[train\] checkpoint_every"):
        render(request_for(**{field: {"--max_train_steps": 5, "checkpointing_steps": 5}}))


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, None])
def test_a_value_that_json_cannot_carry_is_the_users_error(request_for: Any, value: Any) -> None:
    with pytest.raises(UserError):
        render(request_for(user_options={"lora_alpha": value}))


def test_a_profile_setting_that_the_release_lacks_is_a_note(request_for: Any) -> None:
    rendered = render(request_for(release="1.2.5"), accepts=lambda name: name != "offload_during_startup")
    assert "offload_during_startup" not in _config(rendered)
    assert [note for note in rendered.notes if "offload_during_startup" in note]


def test_lycoris_settings_are_merged_key_by_key(request_for: Any) -> None:
    mine = {"factor": 4, "apply_preset": {"module_algo_map": {"Attention": {"factor": 2}}}}
    document: Any = render(request_for(profile="12gb", lycoris=mine)).documents["lycoris_config.json"]
    assert (document["factor"], document["bypass_mode"], document["algo"]) == (4, True, "lokr")
    assert document["apply_preset"]["module_algo_map"] == {"Attention": {"factor": 2}, "FeedForward": {"factor": 8}}


def test_a_standard_lora_has_no_lycoris_file(request_for: Any) -> None:
    rendered = render(request_for(adapter="standard"))
    assert "lycoris_config.json" not in rendered.documents
    assert "lycoris_config" not in _config(rendered)


def test_captions_from_the_trigger(request_for: Any) -> None:
    backend: Any = render(request_for(captions="trigger")).documents["multidatabackend.json"]
    assert [(b["caption_strategy"], b["instance_prompt"]) for b in backend[:-1]] == [("instanceprompt", "behitek")] * 2


def _caches(request: Any) -> set[str]:
    document: Any = render(request).documents["multidatabackend.json"]
    return {backend.get("cache_dir_vae") or backend["cache_dir"] for backend in document}


def test_caches_are_distinct_and_move_with_what_they_depend_on(request_for: Any) -> None:
    first = _caches(request_for())
    assert len(first) == 3
    assert _caches(request_for(steps=5)) == first
    assert len(_caches(request_for(repeats=5)) & first) == 1  # the texts' embeds don't depend on it
    assert not _caches(request_for(base="someone/other-flux")) & first
    assert not _caches(request_for(rehearsal=TINY)) & first


def test_a_trigger_with_a_slash_stays_inside_the_cache(request_for: Any) -> None:
    assert all(Path(cache).parent.parent == Path("/project/cache") for cache in _caches(request_for(trigger="../x y")))


def test_a_rehearsal_replaces_its_closed_list_and_says_so(request_for: Any) -> None:
    request = request_for(profile="12gb", rehearsal=TINY, has_cuda=False, user_options={"lora_rank": 4})
    changes = {name: (before, after) for name, before, after in rehearsal_changes(request)}
    assert changes == {
        "pretrained_model_name_or_path": ("black-forest-labs/FLUX.1-dev", "/tiny"),
        "resolution_type": ("pixel_area", "pixel"),
        "resolution": (1024, 64),
        "max_train_steps": (10000, 4),
        "lr_warmup_steps": (100, 0),
        "checkpoint_step_interval": (1000, 2),
        "validation_step_interval": (1000, 2),
        "validation_resolution": ("640x640", "64x64"),
        "validation_num_inference_steps": (20, 2),
        "dynamo_backend": ("inductor", None),
        "dynamo_use_regional_compilation": (True, None),
        "env.TRAINING_DYNAMO_BACKEND": ("inductor", None),
        "dataset.resolution": ((1024, 512), 64),
        "dataset.minimum_image_size": ((1024, 512), 64),
        "dataset.maximum_image_size": ((1024, 512), None),
        "dataset.target_downsample_size": ((1024, 512), None),
        "dataset.resolution_type": ("pixel_area", "pixel"),
    }
    assert rehearsal_changes(replace(request, rehearsal=None)) == []


def test_a_rehearsal_without_a_gpu_has_no_bitsandbytes(request_for: Any) -> None:
    request = request_for(profile="12gb-nf4", rehearsal=TINY, has_cuda=False)
    changes = rehearsal_changes(request)
    assert ("base_model_precision", "nf4-bnb", "int8-quanto") in changes
    assert ("lycoris.bypass_mode", True, None) in changes


def test_a_rehearsal_with_a_gpu_compiles_as_the_training_does(request_for: Any) -> None:
    rendered = render(request_for(profile="12gb", rehearsal=TINY))
    assert _config(rendered)["dynamo_backend"] == "inductor"
    assert rendered.env["TRAINING_DYNAMO_BACKEND"] == "inductor"


def test_an_older_release_gets_the_profile_that_stands_in_and_a_note(request_for: Any) -> None:
    old = render(request_for(profile="12gb", release="4.0.6"))
    assert _config(old)["base_model_precision"] == "nf4-bnb"
    assert old.notes[0] == "SimpleTuner 4.0.6 is too old for the profile 12gb: it gets 12gb-nf4."
    assert not any("12gb-nf4" in note for note in render(request_for(profile="12gb", release="4.8.0")).notes)


def test_a_rehearsal_with_a_gpu_keeps_the_precision(request_for: Any) -> None:
    rendered = render(request_for(profile="12gb-nf4", rehearsal=TINY))
    assert _config(rendered)["base_model_precision"] == "nf4-bnb"
    document: Any = rendered.documents["lycoris_config.json"]
    assert document["bypass_mode"] is True


def test_diff_shows_what_would_change_and_nothing_after_writing(request_for: Any, tmp_path: Path) -> None:
    write_rendered(render(request_for()), tmp_path)
    assert diff_rendered(render(request_for()), tmp_path) == ""
    diff = diff_rendered(render(request_for(seed=7)), tmp_path)
    assert '-    "--seed": 42,' in diff
    assert '+    "--seed": 7,' in diff


@pytest.mark.parametrize(("steps", "warmup"), [(10000, 100), (100, 10), (1, 0)])
def test_a_short_run_warms_up_for_a_tenth_of_it(request_for: Any, steps: int, warmup: int) -> None:
    assert _config(render(request_for(steps=steps)))["lr_warmup_steps"] == warmup


def test_a_warm_up_as_long_as_the_run_is_refused(request_for: Any) -> None:
    with pytest.raises(UserError, match="whole run"):
        render(request_for(steps=100, user_options={"lr_warmup_steps": 100}))


def test_a_release_before_every_era_is_refused(request_for: Any) -> None:
    with pytest.raises(UserError, match="too old"):
        render(request_for(release="1.1.0"))


def test_expected_modules() -> None:
    full = {"num_layers": 19, "num_single_layers": 38}
    assert expected_modules(full, {}) == 342
    assert expected_modules(full, {"apply_preset": {"target_module": ["Attention"]}}) is None
    assert expected_modules(full, {"apply_preset": {"name_algo_map": {"x": {}}}}) is None
    assert expected_modules({}, {}) is None


def _cache_of_each(request: Any) -> dict[str, str]:
    backends: Any = render(request).documents["multidatabackend.json"]
    return {each["id"].split("-")[1]: each.get("cache_dir_vae") or each["cache_dir"] for each in backends}


def test_options_that_latents_or_texts_depend_on_get_caches_of_their_own(request_for: Any) -> None:
    plain = _cache_of_each(request_for())
    usual = {"vae_dtype": "bf16", "text_encoder_2_precision": "no_change"}
    assert _cache_of_each(request_for(user_options=usual)) == plain
    latents = _cache_of_each(request_for(user_options={"vae_dtype": "fp32"}))
    assert {name for name in plain if latents[name] != plain[name]} == {"1024", "512"}
    texts = _cache_of_each(request_for(user_options={"text_encoder_2_precision": "int8-quanto"}))
    assert {name for name in plain if texts[name] != plain[name]} == {"embeds"}
    assert _cache_of_each(request_for(user_options={"optimizer": "lion"})) == plain


def test_a_changed_crop_or_resolution_gets_another_backend(request_for: Any) -> None:
    """SimpleTuner from 3.0.8 on restores a backend's old settings from its cache: another id has nothing to restore."""

    def ids(**changes: Any) -> set[str]:
        backends: Any = render(request_for(**changes)).documents["multidatabackend.json"]
        return {each["id"] for each in backends if "resolution" in each}

    assert ids() == ids()
    for changes in ({"resolutions": (1008,)}, {"repeats": 7}, {"captions": "trigger"}, {"release": "3.1.6"}):
        assert bool(ids() & ids(**changes)) == ("release" in changes)
