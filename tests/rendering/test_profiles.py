import shutil
from pathlib import Path

import pytest

from fluxkit.cli import cli
from fluxkit.errors import UserError
from fluxkit.project.config import ProjectConfig
from fluxkit.project.tomltext import config_toml
from fluxkit.rendering import profiles
from fluxkit.rendering.profiles import (
    class_profiles,
    load_profile,
    not_measured,
    profile_names,
    read_profile,
    vram_class,
)
from fluxkit.resources import resource


def test_every_shipped_profile_has_a_measurement_of_its_own_settings_that_leaves_room() -> None:
    assert profile_names() == ("12gb", "12gb-nf4", "16gb", "24gb", "24gb-fast", "48gb", "48gb-fast")
    for path in resource("profiles").glob("*.toml"):
        measured = read_profile(path).measured
        assert measured.peak_allocated_gib <= measured.peak_reserved_gib <= 0.95 * measured.cap_gib
        assert measured.cap_gib < int(vram_class(path.stem).removesuffix("gb"))
        assert set(measured.seconds_per_step) == {512, 1024}
        assert max(measured.allocated_gib.values()) == measured.peak_allocated_gib


def test_12gb_has_5_bits_and_compiled_blocks() -> None:
    profile = load_profile("12gb")
    assert (profile.options["base_model_precision"], profile.options["dynamo_backend"]) == ("uint5-sdnq", "inductor")
    assert profile.lycoris == {"bypass_mode": True}
    assert profile.shims == ("sdnq_on_gpu",)


@pytest.mark.parametrize(("release", "name"), [
    (None, "12gb"), ("4.10.1", "12gb"), ("4.8.0", "12gb"), ("4.7.9", "12gb-nf4"), ("1.2.5", "12gb-nf4"),
])  # fmt: skip
def test_a_release_without_its_options_gets_the_profile_that_stands_in(release: str | None, name: str) -> None:
    assert load_profile("12gb", release).name == name
    assert load_profile("24gb", release).name == "24gb"


def test_12gb_nf4_is_the_nf4_row() -> None:
    profile = load_profile("12gb-nf4")
    assert profile.options == {
        "base_model_precision": "nf4-bnb",
        "vae_batch_size": 1,
        "offload_during_startup": True,
        "validation_resolution": "768x768",
    }
    assert profile.lycoris == {"bypass_mode": True}
    assert profile.env == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert profile.shims == ("linear4bit",)


@pytest.mark.parametrize("name", ["12gb", "12gb-nf4"])
def test_12gb_keeps_a_tenth_free(name: str) -> None:
    measured = load_profile(name).measured
    assert measured.peak_reserved_gib <= 0.9 * measured.cap_gib


def test_24gb_is_the_int8_row() -> None:
    profile = load_profile("24gb")
    assert profile.options == {
        "base_model_precision": "int8-quanto",
        "quantize_via": "cpu",
        "offload_during_startup": True,
    }
    assert profile.shims == ()


def test_16gb_is_the_int8_row_with_smaller_validation_images_and_activations_in_ram() -> None:
    profile, guide = load_profile("16gb"), load_profile("24gb")
    assert profile.options == {
        **guide.options,
        "vae_batch_size": 1,
        "validation_resolution": "768x768",
        "gradient_checkpointing_backend": "unsloth",
    }
    assert (profile.lycoris, profile.shims) == (guide.lycoris, guide.shims)


def test_48gb_quantizes_nothing() -> None:
    assert load_profile("48gb").options == {"base_model_precision": "no_change"}


@pytest.mark.parametrize(("name", "plain", "pictures"), [("24gb-fast", "24gb", 3), ("48gb-fast", "48gb", 4)])
def test_a_fast_profile_is_another_one_with_more_pictures_a_step(name: str, plain: str, pictures: int) -> None:
    fast, slow = load_profile(name), load_profile(plain)
    assert fast.options == {**slow.options, "train_batch_size": pictures}
    assert (fast.lycoris, fast.shims) == (slow.lycoris, slow.shims)
    assert fast.measured.batch_size == pictures
    own = load_profile(vram_class(name)).measured
    assert fast.measured.seconds_per_step[1024] / pictures < own.seconds_per_step[1024] / own.batch_size


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copy(resource("profiles", "12gb.toml"), tmp_path / "12gb.toml"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vae_batch_size = 1", "vae_batch_size = 2"),
        ("bypass_mode = true", "bypass_mode = true\nfactor = 4"),
        ('shims = ["sdnq_on_gpu"]', "shims = []"),
        ("expandable_segments:True", "expandable_segments:False"),
        ("[dataset]", '[dataset]\ncrop = "random"'),
    ],
)
def test_a_profile_whose_settings_were_changed_after_the_measurement_is_refused(copy: Path, old: str, new: str) -> None:
    text = copy.read_text()
    assert old in text
    copy.write_text(text.replace(old, new))
    date = load_profile("12gb").measured.date
    with pytest.raises(UserError, match=rf"changed after they were measured \({date}\)") as caught:
        read_profile(copy)
    assert "benchmarks/profiles.py --write 12gb" in caught.value.fix


def test_a_comment_or_the_order_changes_nothing(copy: Path) -> None:
    text = copy.read_text()
    lines = [line for line in text.splitlines() if line.startswith(("base_model_precision", "vae_batch_size"))]
    for line in lines:
        text = text.replace(line + "\n", "")
    swapped = "\n".join(f"{line}  # and more" for line in reversed(lines))
    copy.write_text(text.replace("[options]", f"[options]\n{swapped}"))
    assert read_profile(copy).options == load_profile("12gb").options


def test_a_profile_without_a_measurement_is_refused(copy: Path) -> None:
    copy.write_text(copy.read_text().partition("[measured]")[0])
    with pytest.raises(UserError, match="no measurement"):
        read_profile(copy)


def test_half_a_measurement_is_refused_naming_what_is_missing(copy: Path) -> None:
    lines = copy.read_text().splitlines()
    copy.write_text("\n".join(line for line in lines if not line.startswith(("cap_gib", "host_gib"))))
    with pytest.raises(UserError, match="lacks cap_gib, host_gib"):
        read_profile(copy)


def test_those_who_choose_are_told_of_every_class() -> None:
    (option,) = (one for one in cli.commands["init"].params if one.name == "profile")
    written = config_toml(ProjectConfig.model_validate({"project": {"name": "me", "trigger": "behitek"}}))
    for name in class_profiles():
        assert name in option.help  # type: ignore[attr-defined]
        assert f'"{name}"' in written


def test_another_profile_of_a_class_is_there_by_its_name_and_nobody_is_given_it(fast_profile: str) -> None:
    names = profile_names()
    assert names.index("24gb") + 1 == names.index(fast_profile)
    assert fast_profile not in class_profiles()
    assert load_profile(fast_profile).options["train_batch_size"] == 3
    with pytest.raises(UserError, match="24gb-fast"):
        load_profile("24gb-fats")


def test_unmeasured_profiles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not_measured() == ()
    monkeypatch.setattr(profiles, "CLASSES", (*profiles.CLASSES, "80gb"))
    with pytest.raises(UserError, match="not been measured"):
        load_profile("80gb")


@pytest.mark.parametrize(("name", "nearest"), [("24g", "24gb"), ("12GB", "12gb")])
def test_an_unknown_profile_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f'no profile.*"{nearest}"'):
        load_profile(name)


def test_a_path_is_no_profile() -> None:
    with pytest.raises(UserError, match="no profile"):
        load_profile("../profiles/24gb")


def test_every_quantized_profile_says_how_exact_it_is_and_only_12gb_nf4_is_out_of_bounds() -> None:
    profiles = {name: load_profile(name) for name in profile_names()}
    assert {name for name, one in profiles.items() if one.fidelity is None} == {"48gb", "48gb-fast"}
    rough = {name: one.fidelity for name, one in profiles.items() if one.fidelity and not one.fidelity.within}
    assert list(rough) == ["12gb-nf4"]  # 4 bits, for who names it, or has an older release
    assert rough["12gb-nf4"].bounds == (0.25, 0.95)
    table = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    for profile in profiles.values():
        if (one := profile.fidelity) is None:
            continue
        measured = one.precision + ("-compile" if "dynamo_backend" in profile.options else "")
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {measured} | 0."))
        cells = [cell.strip() for cell in row.split("|")]
        assert (float(cells[2]), float(cells[4])) == (one.block_error, one.gradient_cosine)
        assert cells[6] == ("yes" if one.within else "no")


@pytest.mark.parametrize(("old", "new"), [
    ("[fidelity]", "[something]"), ('precision = "uint5-sdnq"', 'precision = "int8-quanto"'),
])  # fmt: skip
def test_a_profile_is_refused_whose_exactness_was_not_measured(copy: Path, old: str, new: str) -> None:
    head, found, tail = copy.read_text().partition("[fidelity]")
    assert found
    copy.write_text(head + (found + tail).replace(old, new, 1))
    with pytest.raises(UserError, match='exact the profile "12gb" is with uint5-sdnq was not measured') as caught:
        read_profile(copy)
    assert "benchmarks/fidelity.py --precision uint5-sdnq" in caught.value.fix
