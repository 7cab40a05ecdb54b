from typing import Any

import pytest

from fluxkit.trainer.changes import RULES, Effect, changed_settings
from fluxkit.trainer.schema import load_schema

CONFIG = {
    "--optimizer": "adamw_bf16", "--learning_rate": 1e-4, "--lr_scheduler": "polynomial", "--max_train_steps": 100,
    "--train_batch_size": 1, "--base_model_precision": "int8-quanto", "--seed": 42, "--lora_rank": 16,
    "--validation_step_interval": 50, "--lycoris_config": "/a/config/lycoris_config.json",
}  # fmt: skip
BACKENDS = [
    {"id": "b-1024-01234567", "cache_dir_vae": "/c/1", "resolution": 1024, "crop": True, "repeats": 10},
    {"id": "text-embeds", "dataset_type": "text_embeds", "cache_dir": "/c/2"},
]
LYCORIS = {"algo": "lokr", "factor": 16, "bypass_mode": False}


def documents(**config: Any) -> dict[str, Any]:
    options = {**CONFIG, **{f"--{name}": value for name, value in config.items()}}
    return {"config.json": options, "lycoris_config.json": LYCORIS, "multidatabackend.json": BACKENDS}


def effects(after: dict[str, Any], before: Any = None, adapter: str = "lycoris", release: str = "4.8.0") -> Any:
    schema = load_schema(release)
    found = changed_settings(before or documents(), after, adapter=adapter, release=release, schema=schema)
    return {change.name: change.effect for change in found}


def test_nothing_changed() -> None:
    assert effects(documents()) == {}


@pytest.mark.parametrize(
    ("name", "value", "effect"),
    [
        ("optimizer", "optimi-lion", Effect.BREAKS),
        ("lr_scheduler", "constant", Effect.BREAKS),
        ("base_model_precision", "nf4-bnb", Effect.BREAKS),
        ("pretrained_model_name_or_path", "someone/else", Effect.BREAKS),
        ("train_batch_size", 2, Effect.BREAKS),
        ("use_ema", True, Effect.BREAKS),
        ("learning_rate", 2e-4, Effect.IGNORED),
        ("seed", 7, Effect.IGNORED),
        ("max_train_steps", 200, Effect.FINE),
        ("gradient_accumulation_steps", 4, Effect.FINE),
        ("validation_step_interval", 10, Effect.FINE),
        ("lora_rank", 32, Effect.FINE),  # LyCORIS has its own
    ],
)
def test_what_a_changed_option_does(name: str, value: Any, effect: Effect) -> None:
    assert effects(documents(**{name: value})) == {name: effect}


def test_a_standard_adapters_rank_is_its_shape() -> None:
    assert effects(documents(lora_rank=32), adapter="standard") == {"lora_rank": Effect.BREAKS}


def test_the_lycoris_config_is_the_adapter_but_for_how_it_is_computed() -> None:
    after = {**documents(), "lycoris_config.json": {"algo": "lokr", "factor": 8, "bypass_mode": True, "dropout": 0.1}}
    assert effects(after) == {
        "lycoris.factor": Effect.BREAKS, "lycoris.bypass_mode": Effect.FINE, "lycoris.dropout": Effect.FINE,
    }  # fmt: skip


def test_a_constant_schedule_takes_a_new_rate() -> None:
    before, after = (documents(lr_scheduler="constant", learning_rate=rate) for rate in (1e-4, 2e-4))
    assert effects(after, before) == {"learning_rate": Effect.FINE}


def test_before_4_7_1_the_batch_size_may_change() -> None:
    assert effects(documents(train_batch_size=2), release="4.0.6") == {"train_batch_size": Effect.FINE}


def test_datasets_are_compared_without_what_follows_from_them() -> None:
    backends = [{**BACKENDS[0], "id": "b-512-89abcdef", "cache_dir_vae": "/c/9", "resolution": 512, "crop": False}]
    assert effects({**documents(), "multidatabackend.json": backends}) == {
        "dataset.resolutions": Effect.FINE, "dataset.crop": Effect.FINE,
    }  # fmt: skip


def test_another_releases_names_are_the_same_settings() -> None:
    old = {name: value for name, value in CONFIG.items() if name != "--validation_step_interval"}
    before = {**documents(), "config.json": {**old, "--validation_steps": 50, "--push_to_hub": False}}
    assert effects(documents(), before) == {}


def test_a_moved_project_is_no_change() -> None:
    before = documents(pretrained_model_name_or_path="/old/place/flux-dev")
    after = documents(pretrained_model_name_or_path="/new/place/flux-dev")
    assert effects(after, before) == {}
    assert effects(documents(pretrained_model_name_or_path="/new/place/other"), before) != {}


def test_a_line_names_the_setting_both_values_and_the_reason() -> None:
    found = changed_settings(
        documents(), documents(optimizer="lion"), adapter="lycoris", release="4.8.0", schema=load_schema("4.8.0")
    )
    assert found[0].describe().startswith("optimizer: adamw_bf16 → lion (the checkpoint holds another optimizer")


def test_every_row_that_stops_a_run_says_why() -> None:
    assert all(rule.reason for rule in RULES if rule.effect in (Effect.BREAKS, Effect.IGNORED))
