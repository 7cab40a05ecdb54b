import pytest

from fluxkit.errors import UserError
from fluxkit.rendering.profiles import load_profile, profile_names


def test_the_measured_profiles() -> None:
    assert profile_names() == ("12gb", "24gb")
    for name in profile_names():
        profile = load_profile(name)
        assert profile.measured["peak_reserved_gib"] < profile.measured["cap_gib"] < int(name.removesuffix("gb"))


def test_12gb_is_the_nf4_row() -> None:
    profile = load_profile("12gb")
    assert profile.options == {"base_model_precision": "nf4-bnb", "vae_batch_size": 1}
    assert profile.lycoris == {"bypass_mode": True}
    assert profile.env == {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert profile.shims == ("linear4bit",)


def test_24gb_is_the_int8_row() -> None:
    profile = load_profile("24gb")
    assert profile.options == {
        "base_model_precision": "int8-quanto",
        "quantize_via": "cpu",
        "offload_during_startup": True,
    }
    assert profile.shims == ()


@pytest.mark.parametrize("name", ["16gb", "48gb"])
def test_unmeasured_profiles_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="not been measured"):
        load_profile(name)


@pytest.mark.parametrize(("name", "nearest"), [("24g", "24gb"), ("12GB", "12gb")])
def test_an_unknown_profile_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f'no profile.*"{nearest}"'):
        load_profile(name)


def test_a_path_is_no_profile() -> None:
    with pytest.raises(UserError, match="no profile"):
        load_profile("../profiles/24gb")
