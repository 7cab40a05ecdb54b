from typing import Any

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer.history import history
from fluxkit.trainer.options import migrate, schema_diff, translate, vanished_options
from fluxkit.trainer.releases import releases
from fluxkit.trainer.schema import check_options, load_schema


def translated(options: dict[str, Any], release: str) -> dict[str, Any]:
    return dict(translate(options, load_schema(release)).options)


@pytest.mark.parametrize(
    ("written", "release", "rendered"),
    [
        ({"checkpointing_steps": 5}, "4.8.0", {"checkpoint_step_interval": 5}),
        ({"--checkpoint-step-interval": 5}, "2.2.1", {"checkpointing_steps": 5}),
        ({"flux_schedule_shift": 2.0}, "4.10.1", {"flow_schedule_shift": 2.0}),
        ({"flux_use_beta_schedule": True}, "2.1.3", {"flow_use_beta_schedule": True}),
        ({"flow_matching_sigmoid_scale": 0.5}, "3.1.6", {"flow_sigmoid_scale": 0.5}),
        ({"fused_qkv_projections": True}, "3.1.6", {"fuse_qkv_projections": True}),
        # The new name of the epoch option means the opposite.
        ({"ignore_final_epochs": True}, "4.8.0", {"strict_epoch_limit": False}),
        ({"ignore_final_epochs": "true"}, "4.8.0", {"strict_epoch_limit": "false"}),
        ({"strict_epoch_limit": True}, "4.0.6", {"ignore_final_epochs": False}),
        ({"ignore_final_epochs": True}, "4.0.6", {"ignore_final_epochs": True}),
        ({"strict_epoch_limit": True}, "4.10.1", {"strict_epoch_limit": True}),
        # A value under the name that the release has.
        ({"base_model_precision": "fp8wo-torchao"}, "4.0.6", {"base_model_precision": "fp8-torchao"}),
        ({"base_model_precision": "fp8wo-torchao"}, "4.8.0", {"base_model_precision": "fp8wo-torchao"}),
        ({"base_model_precision": "fp8-torchao"}, "4.8.0", {"base_model_precision": "fp8-torchao"}),
        # Float options that became whole numbers.
        ({"snr_gamma": 5.0}, "4.8.0", {"snr_gamma": 5}),
        ({"snr_gamma": 5.0}, "2.2.1", {"snr_gamma": 5.0}),
        ({"snr_gamma": 5.5}, "4.8.0", {"snr_gamma": 5.5}),
        ({"nobody_knows": 1}, "4.8.0", {"nobody_knows": 1}),
    ],
)
def test_any_name_and_value_becomes_the_releases(
    written: dict[str, Any], release: str, rendered: dict[str, Any]
) -> None:
    result = translate(written, load_schema(release))
    assert result.options == rendered
    assert type(next(iter(result.options.values()))) is type(next(iter(rendered.values())))
    assert result.written == dict(zip(rendered, written, strict=True))
    assert result.notes == ()


def test_the_same_option_by_two_names_is_refused() -> None:
    with pytest.raises(UserError, match=r"flux_schedule_shift and flow_schedule_shift are the same option"):
        translated({"flux_schedule_shift": 1, "flow_schedule_shift": 2}, "4.8.0")


@pytest.mark.parametrize("value", [False, "false"])
def test_an_option_that_is_gone_and_asked_for_nothing_is_left_out_with_a_note(value: object) -> None:
    result = translate({"validation_torch_compile": value, "lora_rank": 4}, load_schema("4.8.0"))
    assert result.options == {"lora_rank": 4}
    assert "validation_torch_compile is gone from SimpleTuner 4.8.0" in result.notes[0]


def test_an_option_that_is_gone_and_asked_for_something_is_named_with_when() -> None:
    schema = load_schema("4.8.0")
    options = translate({"validation_torch_compile": True}, schema).options
    messages = {problem.name: problem.message for problem in check_options(options, schema)}
    assert "since 3.2.2" in messages["validation_torch_compile"]


@pytest.mark.parametrize(("old", "new", "before", "after"), [
    ("4.0.6", "4.8.0", "fp8-torchao", "fp8wo-torchao"),  # what it meant
    ("4.8.0", "4.0.6", "fp8wo-torchao", "fp8-torchao"),
    ("4.8.0", "4.10.1", "fp8-torchao", "fp8-torchao"),
    ("3.3.4", "4.0.6", "fp8-torchao", "fp8-torchao"),
    ("4.0.6", "4.8.0", "int8-quanto", "int8-quanto"),
])  # fmt: skip
def test_a_value_keeps_its_meaning_over_an_upgrade(old: str, new: str, before: str, after: str) -> None:
    options = {"--base-model-precision": before, "lora_rank": 4}
    migrated = migrate(options, old, new)
    assert migrated == {"--base-model-precision": after, "lora_rank": 4}
    assert migrate(migrated, old, new) == migrated
    assert options["--base-model-precision"] == before


def vanished(options: dict[str, Any], old: str, new: str) -> dict[str, str]:
    return {one.name: one.reason for one in vanished_options(options, load_schema(old), load_schema(new))}


def test_an_option_in_use_without_a_successor_is_named() -> None:
    gone = vanished({"enable_group_offload": True, "lora_rank": 4, "ignore_final_epochs": True}, "4.8.0", "4.10.1")
    assert list(gone) == ["enable_group_offload"]
    assert "since 4.10.1" in gone["enable_group_offload"]


@pytest.mark.parametrize("options", [
    {"enable_group_offload": False},  # asked for nothing
    {"checkpointing_steps": 5, "strict_epoch_limit": True, "flux_schedule_shift": 3},
    {"nobody_knows": 1},  # the old release didn't know it either: not the upgrade's doing
    {"attention_mechanism": "sageattention"},
])  # fmt: skip
def test_what_has_a_successor_has_not_vanished(options: dict[str, Any]) -> None:
    assert vanished(options, "4.8.0", "4.10.1") == {}


def test_a_value_without_a_successor_is_named_too() -> None:
    gone = vanished({"base_model_precision": "fp8-torchao"}, "4.8.0", "4.0.6")
    assert "quantizes activations too" in gone["base_model_precision"]
    assert vanished({"base_model_precision": "fp8-torchao"}, "4.0.6", "4.8.0") == {}
    assert list(vanished({"scheduled_sampling_sampler": "rk4"}, "4.0.6", "4.8.0")) == ["scheduled_sampling_sampler"]


def changes(old: str, new: str, used: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any, bool]]:
    diff = schema_diff(load_schema(old), load_schema(new), used)
    return {(change.kind, change.name): (change.old, change.new, change.used) for change in diff}


def test_the_diff_between_two_releases() -> None:
    found = changes("2.2.1", "3.1.6", {"--checkpointing_steps": 5, "--resolution": 1024, "--lr_scheduler": "sine"})
    assert found["renamed", "checkpointing_steps"] == ("checkpointing_steps", "checkpoint_step_interval", True)
    assert found["renamed", "validation_steps"] == ("validation_steps", "validation_step_interval", False)
    assert found["retyped", "resolution"] == ("float", "int", True)
    assert ("retyped", "minimum_image_size") not in found
    assert found["default", "lr_scheduler"] == ("sine", "constant_with_warmup", True)
    # Left out by the project: a default that would change the result.
    assert found["default", "gradient_checkpointing"] == (False, True, False)
    assert ("default", "compress_disk_cache") not in found
    assert found["added", "enable_group_offload"] == (None, "enable_group_offload", False)


def test_the_diff_to_the_newest() -> None:
    found = changes("4.8.0", "4.10.1", {})
    assert found["default", "attention_mechanism"] == ("diffusers", "kohaku-fa-auto", False)
    assert found["removed", "enable_group_offload"] == ("enable_group_offload", None, False)


def test_the_default_of_an_inverted_option_is_compared_in_one_sense() -> None:
    found = changes("4.0.6", "4.8.0", {"ignore_final_epochs": False})
    assert found["renamed", "ignore_final_epochs"] == ("ignore_final_epochs", "strict_epoch_limit", True)
    # It was strict, and is not any more, though both say False.
    assert found["default", "strict_epoch_limit"] == (True, False, True)
    assert ("default", "strict_epoch_limit") not in changes("4.0.6", "4.8.0", {})


def test_no_difference_within_a_release() -> None:
    assert changes("4.8.0", "4.8.0", {"lora_rank": 4}) == {}


def test_the_history_names_options_that_a_release_has() -> None:
    known = {name for release in releases() for name in load_schema(release.version).names()}
    rows = history()
    assert {name for row in (*rows.renamed, *rows.removed) for name in row.names} <= known
    assert {name for row in rows.revalued for name in row.options} <= known
    assert set(rows.harmless_defaults) <= known


def test_every_removal_is_true_of_the_listed_releases() -> None:
    newest = load_schema(releases()[0].version)
    for row in history().removed:
        assert [name for name in row.names if newest.find(name)] == []
