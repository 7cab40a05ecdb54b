from collections.abc import Callable

import pytest

from fluxkit.fitting.adapter import MEASURED_PARAMETERS, lokr_parameters, lora_parameters
from fluxkit.fitting.memory import gpu_need
from fluxkit.fitting.model import TrainingPlan
from fluxkit.rendering.profiles import load_profile

Plans = Callable[..., TrainingPlan]
GUIDE = {
    "algo": "lokr",
    "full_matrix": True,
    "factor": 16,
    "apply_preset": {
        "target_module": ["Attention", "FeedForward"],
        "module_algo_map": {"Attention": {"factor": 16}, "FeedForward": {"factor": 8}},
    },
}


def test_the_measured_conditions_give_the_measured_figures(plan_for: Plans) -> None:
    need = gpu_need(plan_for())
    assert need.surety == "measured profile"
    assert need.peak is not None
    assert (need.peak.phase, need.gib) == ("validation_image", pytest.approx(15.44 + 0.75))
    assert need.at_least_gib == need.gib
    small = gpu_need(plan_for("12gb", validation_edge=640))
    assert (small.peak and small.peak.phase, small.gib) == ("text_encoding", pytest.approx(9.57 + 0.75))
    assert small.surety == "measured profile"


def test_larger_validation_images_than_the_measured_ones_are_an_estimate_above_them(plan_for: Plans) -> None:
    need = gpu_need(plan_for("12gb", validation_edge=1024))
    (image,) = (one for one in need.phases if one.phase == "validation_image")
    assert image.gib > image.at_least == 9.46
    assert need.surety == "estimate"
    assert "Validation images were measured at 640, not at 1024." in need.notes


def test_t5_that_is_still_there_when_the_vae_begins_does_not_grow_with_the_pictures(plan_for: Plans) -> None:
    need = gpu_need(plan_for("12gb", resolutions=(1536,)))
    measured = load_profile("12gb").measured.allocated_gib["vae_caching"]
    assert {one.phase: one.gib for one in need.phases}["vae_caching"] == measured


def test_without_validation_images_the_step_is_the_most(plan_for: Plans) -> None:
    need = gpu_need(plan_for(validation_edge=None))
    assert (need.peak and need.peak.phase, need.gib) == ("training_step", pytest.approx(14.44 + 0.75))


def test_a_size_between_is_estimated_between_and_only_the_smaller_one_is_knowledge(plan_for: Plans) -> None:
    need = gpu_need(plan_for(resolutions=(768,), validation_edge=None))
    (step,) = (one for one in need.phases if one.phase == "training_step")
    assert 12.8 < step.gib < 14.44
    assert step.at_least == 12.8
    assert need.surety == "estimate"
    assert any("worked out from steps at 512 and 1024" in note for note in need.notes)


def test_a_larger_picture_or_batch_takes_more_and_the_measured_step_stays_knowledge(plan_for: Plans) -> None:
    for changes in ({"resolutions": (1536,), "validation_edge": 1536}, {"batch_size": 2}, {"batch_size": 4}):
        need = gpu_need(plan_for(**changes))
        (step,) = (one for one in need.phases if one.phase == "training_step")
        assert step.gib > step.at_least == 14.44
        assert need.surety == "estimate"
    two, four = (gpu_need(plan_for(batch_size=size)).gib for size in (2, 4))
    assert two is not None
    assert four is not None
    assert two < four


def test_smaller_pictures_are_expected_to_take_less_and_only_their_own_step_is_knowledge(plan_for: Plans) -> None:
    need = gpu_need(plan_for(resolutions=(512,), validation_edge=512))
    known = {one.phase: one.at_least for one in need.phases}
    assert (known["validation_image"], known["vae_caching"], known["training_step"]) == (0, 9.36, 12.8)
    expected = {one.phase: one.gib for one in need.phases}
    assert 12.0 < expected["validation_image"] < 15.44
    assert expected["vae_caching"] == 9.36  # T5 is still there
    assert need.surety == "estimate"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unmeasured": ("gradient_checkpointing = False",)}, "gradient_checkpointing = False"),
        ({"release": "4.10.1"}, "measured with SimpleTuner 4.8.0, not 4.10.1"),
        ({"adapter_parameters": None}, "size of this adapter is not counted"),
    ],
)
def test_what_was_never_measured_is_said_and_is_no_knowledge(
    plan_for: Plans, changes: dict[str, object], said: str
) -> None:
    need = gpu_need(plan_for(**changes))
    assert need.at_least_gib == 0
    assert need.surety != "measured profile"
    assert any(said in note for note in need.notes)


def test_a_larger_adapter_takes_more_and_a_smaller_one_less(plan_for: Plans) -> None:
    larger = gpu_need(plan_for(adapter_parameters=MEASURED_PARAMETERS + 2**30))
    assert larger.gib == pytest.approx(15.44 + 0.75 + 10)  # ten bytes a parameter
    assert larger.at_least_gib == pytest.approx(15.44 + 0.75)
    smaller = gpu_need(plan_for(adapter_parameters=1_000_000))
    assert smaller.at_least_gib < 15.44 + 0.75


def test_the_guides_lokr_is_as_large_as_the_real_one() -> None:
    assert lokr_parameters(GUIDE) == MEASURED_PARAMETERS
    assert pytest.approx(54.7e6, rel=1e-3) == MEASURED_PARAMETERS  # counted in the real adapter, 2026-11-22


@pytest.mark.parametrize(
    "change",
    [{"algo": "loha"}, {"full_matrix": False}, {"apply_preset": {"target_module": ["Attention"]}}, {"factor": "x",
     "apply_preset": {"target_module": ["Attention", "FeedForward"]}}],
)  # fmt: skip
def test_an_adapter_that_cannot_be_counted_is_not(change: dict[str, object]) -> None:
    assert lokr_parameters({**GUIDE, **change}) is None


def test_a_lora_grows_with_its_rank() -> None:
    assert lora_parameters(32) == 2 * (lora_parameters(16) or 0)
    assert lora_parameters(16, "tiny") is None
