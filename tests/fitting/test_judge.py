import datetime as dt
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from fluxkit.files import cache_dir
from fluxkit.fitting.judge import judge
from fluxkit.fitting.model import Machine, TrainingPlan
from fluxkit.fitting.report import report_dict, report_text, verdict
from fluxkit.fitting.store import StoredMeasurement, keep, settings_key, stored
from fluxkit.hardware import Gpu
from fluxkit.rendering.profiles import load_profile
from fluxkit.trainer.measure import Measurement, Peak

Plans = Callable[..., TrainingPlan]
Machines = Callable[..., Machine]
OUT = StoredMeasurement("2026-11-24", "card", "4.8.0", False, "training_step", {"load": 9.0}, {}, 10.0, 12.0)


def test_a_24_gb_card_with_64_gb_of_ram_fits_the_24gb_profile(plan_for: Plans, machine_with: Machines) -> None:
    fit = judge(plan_for(), machine_with(24))
    assert fit.shortfalls == ()
    assert verdict(fit) is True
    assert "It fits." in report_text(fit)


@pytest.mark.parametrize(
    ("profile", "unmeasured", "line"),
    [
        (
            "24gb",
            (),
            "int8-quanto, 8 bits; the adapter's gradients have a cosine of 0.999 with bf16's (0.99 is asked for)",
        ),
        (
            "12gb",
            (),
            "uint5-sdnq, 5 bits; the adapter's gradients have a cosine of 0.970 with bf16's (0.95 is asked for)",
        ),
        (
            "12gb-nf4",
            (),
            "nf4-bnb, 4 bits; the adapter's gradients have a cosine of 0.890 with bf16's (below the 0.95 that is asked "
            "for: docs/profiles.md)",
        ),
        ("48gb", (), "the base model in bf16, nothing rounded"),
        (
            "24gb",
            ("base_model_precision = 'fp8-torchao'",),
            "not known: nobody measured this base_model_precision with fluxkit",
        ),
    ],
)
def test_it_says_how_exact_the_base_model_is(
    plan_for: Plans, machine_with: Machines, profile: str, unmeasured: tuple[str, ...], line: str
) -> None:
    fit = judge(plan_for(profile, unmeasured=unmeasured), machine_with(24))
    assert f"Exactness: {line}" in report_text(fit).splitlines()
    known = report_dict(fit)["exactness"]
    assert (known is None) == (unmeasured != () or profile == "48gb")
    assert known is None or known["within_bounds"] == (profile != "12gb-nf4")


def test_a_16_gb_card_is_refused_and_three_changes_are_named_cheapest_first(
    plan_for: Plans, machine_with: Machines
) -> None:
    fit = judge(plan_for(), machine_with(16))
    (short,) = fit.shortfalls
    assert "validation image at 1024 was measured to take 16.2 GiB; this card has 16.0" in short.message
    titles = [change.title for change in short.changes]
    assert titles == [
        "Set validation_disable = true in [train.options].",
        'Set profile = "16gb" in [train].',
        "Set resolutions = [512] in [dataset].",
    ]
    assert "stays int8-quanto; a step took 1.73 s instead of 1.44 on an NVIDIA H200." in short.changes[1].cost
    assert verdict(fit) is False


def test_every_change_that_is_named_would_fit(plan_for: Plans, machine_with: Machines) -> None:
    card = machine_with(16)
    fit = judge(plan_for(), card)
    assert judge(plan_for(validation_edge=None), card).shortfalls == ()
    assert judge(plan_for("16gb", validation_edge=768), card).shortfalls == ()
    assert judge(plan_for(resolutions=(512,), validation_edge=512), card).shortfalls == ()
    assert fit.shortfalls


def test_an_8_gb_card_is_refused_with_nothing_to_offer(plan_for: Plans, machine_with: Machines) -> None:
    fit = judge(plan_for("12gb"), machine_with(8))
    assert [short.changes for short in fit.shortfalls] == [()]
    assert "Nothing that was measured would fit." in report_text(fit)


def test_memory_that_others_hold_is_asked_back_first(plan_for: Plans, machine_with: Machines) -> None:
    small = load_profile("12gb").measured
    plan = plan_for()
    same = replace(plan.profile, measured=replace(plan.profile.measured, date=small.date))
    (short,) = judge(replace(plan, profile=same), machine_with(24, free=12)).shortfalls
    assert "12.0 of the 24.0 GiB" in short.message
    assert "blender (process 77)" in short.changes[0].title
    assert "4.2 GiB more" in short.changes[0].cost
    assert 'profile = "12gb"' in short.changes[1].title
    mine, theirs = (one.seconds_per_step[1024] for one in (plan.profile.measured, small))
    assert f"a step took {theirs:.2f} s instead of {mine:.2f} on an NVIDIA H200" in short.changes[1].cost


def test_times_of_another_day_come_with_their_dates(plan_for: Plans, machine_with: Machines) -> None:
    plan = plan_for()
    older = replace(plan.profile.measured, date=dt.date(2026, 11, 1))
    plan = replace(plan, profile=replace(plan.profile, measured=older))
    (short,) = judge(plan, machine_with(24, free=12)).shortfalls
    then = load_profile("12gb").measured.date
    assert f" s on an NVIDIA H200 ({then}), as it is " in short.changes[1].cost
    assert short.changes[1].cost.endswith(" s (2026-11-01). About 10.3 GiB.")


def test_a_larger_batch_that_only_an_estimate_refuses_goes_on_with_a_note(
    plan_for: Plans, machine_with: Machines
) -> None:
    fit = judge(plan_for(batch_size=8), machine_with(24))
    assert fit.shortfalls == ()
    assert any("may run out of GPU memory" in note for note in fit.notes)
    assert any("--measure" in note for note in fit.notes)
    assert verdict(fit) is None


def test_changes_are_put_together_where_none_is_enough_alone(plan_for: Plans, machine_with: Machines) -> None:
    (short,) = judge(plan_for(batch_size=4), machine_with(15.5)).shortfalls
    assert [change.title for change in short.changes] == [
        'Set profile = "12gb" in [train].',  # what checkpointing keeps is in RAM, so a larger batch takes little
        "Set validation_disable = true in [train.options]. Set train_batch_size = 1 in [train.options].",
        "Set train_batch_size = 1 in [train.options]. Set resolutions = [512] in [dataset].",
    ]
    assert "one picture instead of 4" in short.changes[1].cost


def test_settings_nobody_measured_are_never_refused_for_gpu_memory(plan_for: Plans, machine_with: Machines) -> None:
    fit = judge(plan_for(unmeasured=("ramtorch = True",)), machine_with(8, ram=8))
    assert fit.shortfalls == ()
    assert verdict(fit) is None


def test_no_gpu_is_said_and_nothing_is_refused_for_it(plan_for: Plans, machine_with: Machines) -> None:
    fit = judge(plan_for(), machine_with(None))
    assert fit.shortfalls == ()
    assert any("No NVIDIA GPU" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("memory", "said"),
    [({"ram": 16}, "there are 16 GiB"), ({"ram": 64, "limit": 16}, "this container may take 16 GiB")],
)
def test_too_little_ram_is_refused(
    plan_for: Plans, machine_with: Machines, memory: dict[str, float], said: str
) -> None:
    (short,) = judge(plan_for(), machine_with(24, **memory)).shortfalls
    assert short.what == "RAM"
    assert said in short.message
    assert 'profile = "12gb-nf4"' in short.changes[0].title  # 12gb takes 16.3 GiB while its workers compile
    assert "swap" in short.changes[1].title


def test_swap_counts_but_not_inside_a_container(plan_for: Plans, machine_with: Machines) -> None:
    assert judge(plan_for(), machine_with(24, ram=16, swap=16)).shortfalls == ()
    assert judge(plan_for(), machine_with(24, ram=64, limit=16, swap=16)).shortfalls


@pytest.mark.parametrize("profile", ["16gb", "24gb", "24gb-fast"])
def test_32_gb_of_ram_are_enough_to_quantize_on_the_cpu(plan_for: Plans, machine_with: Machines, profile: str) -> None:
    """The model's file is mapped: its 22 GiB are resident meanwhile, but nobody has to have them."""
    fit = judge(plan_for(profile), machine_with(24, ram=31))
    assert fit.shortfalls == ()
    assert not any("RAM" in note for note in fit.notes)


def test_a_full_disk_is_refused_and_fewer_checkpoints_may_fit(plan_for: Plans, machine_with: Machines) -> None:
    (short,) = judge(plan_for(), machine_with(24, disk=2e9)).shortfalls
    assert short.what == "disk"
    title = short.changes[0].title
    assert title.startswith("Set checkpoints_total_limit = ")
    kept = int(title.split(" = ")[1].split()[0])
    assert judge(plan_for(checkpoints=kept + 1), machine_with(24, disk=2e9)).shortfalls == ()


def test_the_model_counts_on_its_own_disk(plan_for: Plans, machine_with: Machines) -> None:
    plan = plan_for(model_bytes=33_000_000_000)
    assert judge(plan, machine_with(24, disk=20e9, model_disk=40e9)).shortfalls == ()
    (short,) = judge(plan, machine_with(24, disk=20e9, model_disk=30e9)).shortfalls
    assert "/m" in short.message
    assert any("HF_HOME" in change.title for change in short.changes)


def test_what_ran_out_here_is_refused_whatever_the_profile_says(plan_for: Plans, machine_with: Machines) -> None:
    (short,) = judge(plan_for(), machine_with(24), OUT).shortfalls
    assert "ran out of memory on this card (training step)" in short.message


def test_what_fitted_here_is_known_to_fit(plan_for: Plans, machine_with: Machines) -> None:
    here = replace(OUT, ok=True, allocated_gib={"training_step": 20.0, "load": 9.0}, host_gib=20.0)
    fit = judge(plan_for(unmeasured=("ramtorch = True",), batch_size=4), machine_with(24, ram=32), here)
    assert fit.shortfalls == ()
    assert (fit.gpu.surety, fit.gpu.gib, fit.host_gib) == ("measured here", 20.75, 20.0)
    assert verdict(fit) is True


def test_the_json_document_holds_the_same(plan_for: Plans, machine_with: Machines) -> None:
    document = json.loads(json.dumps(report_dict(judge(plan_for(), machine_with(16)))))
    assert document["fits"] is False
    assert document["gpu"]["needs_gib"] == 16.19
    assert document["gpu"]["peak_phase"] == "validation_image"
    assert len(document["shortfalls"][0]["changes"]) == 3
    assert {need["use"] for need in document["disk"]} == {"the project"}


def test_a_measurement_is_kept_by_card_release_and_settings() -> None:
    gpu = Gpu("card", 24 * 2**30, 0, "580")
    measured = Measurement(phases={"load": Peak(7.123, 8.0)}, seconds_per_step={1024: 1.5}, steps=3, ended_in="load")
    key = settings_key({"a": 1}, gpu, "4.8.0")
    assert stored(key) is None
    kept = keep(key, measured, gpu=gpu, release="4.8.0", ok=True)
    assert stored(key) == kept
    assert (kept.allocated_gib, kept.seconds_per_step) == ({"load": 7.12}, {1024: 1.5})
    others = [
        settings_key({"a": 2}, gpu, "4.8.0"),
        settings_key({"a": 1}, gpu, "4.10.1"),
        settings_key({"a": 1}, replace(gpu, name="other"), "4.8.0"),
    ]
    assert [stored(other) for other in others] == [None] * 3
    (file,) = (cache_dir() / "fit").iterdir()
    for damage in ("{", "[]", '{"seconds_per_step": {}, "later": 1}'):
        file.write_text(damage)
        assert stored(key) is None


def test_another_profile_of_the_class_is_judged_by_its_own_figures_and_the_plain_one_is_an_advice(
    plan_for: Callable[..., TrainingPlan], machine_with: Callable[..., Machine], fast_profile: str
) -> None:
    plan = plan_for(fast_profile, batch_size=3)
    assert judge(plan, machine_with(24)).shortfalls == ()
    (short,) = judge(plan, machine_with(17)).shortfalls
    assert "19.9 GiB" in short.message
    costs = {change.title: change.cost for change in short.changes}
    cost = costs['Set profile = "24gb" in [train].']
    assert cost.startswith("A step sees 1 photo instead of 3, so it takes more steps")
    assert "less exact" not in cost
    # Nobody is told to take a profile that trains otherwise.
    assert not any("fast" in title for title in costs)
