import json

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer.releases import releases
from fluxkit.trainer.schema import canonical_name, check_options, load_schema

REQUIRED_480 = {
    "model_family": "flux",
    "model_type": "lora",
    "output_dir": "out",
    "optimizer": "adamw_bf16",
    "data_backend_config": "config/multidatabackend.json",
}

# The figures of the manual process that fluxkit replaces, for 1.2.x.
GUIDE = {
    "--resume_from_checkpoint": "latest",
    "--pretrained_model_name_or_path": "black-forest-labs/FLUX.1-dev",
    "--data_backend_config": "config/dataset.json",
    "--aspect_bucket_rounding": 2,
    "--minimum_image_size": 0,
    "--output_dir": "output/lora",
    "--lora_type": "lycoris",
    "--num_train_epochs": 0,
    "--checkpointing_steps": 1000,
    "--push_to_hub": "false",
    "--model_type": "lora",
    "--model_family": "flux",
    "--gradient_checkpointing": "true",
    "--validation_steps": 1000,
    "--validation_guidance_rescale": "0.0",
    "--validation_num_inference_steps": "20",
    "--optimizer": "adamw_bf16",
    "--learning_rate": "1e-4",
    "--validation_torch_compile": "false",
    "--base_model_precision": "int8-quanto",
    "--max_grad_norm": 1.0,
    "--user_prompt_library": "config/user_prompt_library.json",
}


def messages(extra: dict[str, object], release: str = "4.8.0") -> dict[str, str]:
    problems = check_options({**REQUIRED_480, **extra}, load_schema(release))
    return {problem.name: problem.message for problem in problems}


def test_guide_config_is_accepted_by_its_release() -> None:
    assert check_options(GUIDE, load_schema("1.2.5")) == []


def test_complete_config_has_no_problems() -> None:
    assert messages({"base_model_precision": "nf4-bnb", "model_flavour": "dev", "gradient_checkpointing": False}) == {}


@pytest.mark.parametrize("spelling", ["max_train_steps", "--max_train_steps", "max-train-steps", "--max-train-steps"])
def test_find_takes_every_spelling(spelling: str) -> None:
    option = load_schema("4.8.0").find(spelling)
    assert option is not None
    assert (option.name, option.type) == ("max_train_steps", "int")


def test_unknown_option_names_the_nearest() -> None:
    assert '"max_train_steps"' in messages({"max_train_step": 4})["max_train_step"]


def test_name_of_another_release_is_translated_in_the_message() -> None:
    problems = check_options({**GUIDE, "validation_step_interval": 5}, load_schema("1.2.5"))
    assert [(problem.name, "validation_steps" in problem.message) for problem in problems] == [
        ("validation_step_interval", True)
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_train_steps", "many", "whole number"),
        ("max_train_steps", 4.5, "whole number"),
        ("max_train_steps", True, "whole number"),
        ("learning_rate", "fast", "a number"),
        ("use_ema", "yes", "true or false"),
        ("base_model_precision", "int8-quant", '"int8-quanto"'),
        ("validation_prompt", "true", "switch"),
        ("validation_prompt", None, "leave it out"),
        ("gradient_checkpointing", "false", "without quotes"),
    ],
)
def test_wrong_value_is_named(name: str, value: object, expected: str) -> None:
    assert expected in messages({name: value})[name]


def test_missing_required_option_is_named() -> None:
    problems = check_options({k: v for k, v in REQUIRED_480.items() if k != "optimizer"}, load_schema("4.8.0"))
    assert [problem.name for problem in problems] == ["optimizer"]


def test_alias_and_name_together_are_one_option_twice() -> None:
    assert "same option" in messages({"validation_steps": 1, "validation_step_interval": 2})["validation_step_interval"]


@pytest.mark.parametrize(
    ("name", "release", "now"),
    [
        ("--checkpointing_steps", "4.8.0", "checkpoint_step_interval"),
        ("checkpoint-step-interval", "1.2.5", "checkpointing_steps"),
        ("validation_step_interval", "1.2.5", "validation_steps"),
        ("flux_schedule_shift", "4.8.0", "flow_schedule_shift"),
        ("nobody-knows", "4.8.0", "nobody_knows"),
    ],
)
def test_canonical_name_follows_the_release(name: str, release: str, now: str) -> None:
    assert canonical_name(name, load_schema(release)) == now


def test_choices_that_need_a_gpu_are_kept_and_listed() -> None:
    option = load_schema("1.2.5").find("base_model_precision")
    assert option is not None
    assert "nf4-bnb" in option.choices


def test_schemas_hold_no_upstream_help_text(project_root) -> None:
    files = sorted((project_root / "third_party" / "simpletuner" / "schemas").glob("*.json"))
    assert {file.stem for file in files} == {release.version for release in releases()}
    for file in files:
        for entry in json.loads(file.read_text())["options"].values():
            assert set(entry) <= {"aliases", "type", "choices", "cuda_choices", "default", "required"}


def test_release_without_shipped_schema_says_that_it_is_asked_when_installed() -> None:
    with pytest.raises(UserError, match=r"9\.9\.9") as error:
        load_schema("9.9.9")
    assert "fluxkit install" in error.value.fix
