"""The candidates and what is made of their results; running them is tests/test_measure_for_real.py and a GPU's work."""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from benchmarks import profiles
from benchmarks.profile_tables import (
    BEGIN,
    END,
    Candidate,
    Result,
    append_result,
    load_candidates,
    read_results,
    result_of,
    table,
    write_measurement,
    write_report,
)
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.rendering.profiles import SETTINGS, load_profile, read_profile, settings_digest, vram_class
from fluxkit.resources import resource
from fluxkit.trainer.measure import PHASES, Measurement, Peak
from fluxkit.trainer.schema import check_options, load_schema

CANDIDATES = load_candidates(Path(__file__).parents[2] / "benchmarks" / "profile_candidates.toml")
Results = Callable[..., Result]


@pytest.fixture
def nf4() -> Candidate:
    """The shipped 12 GB profile, as a candidate."""
    return next(one for one in CANDIDATES if one.settings.name == "nf4")


@pytest.fixture
def result_for(nf4: Candidate) -> Results:
    """A run that proves the 12 GB profile, with the changes given."""

    def make(candidate: Candidate = nf4, reserved: float = 10.0, drop: str = "", **changes: Any) -> Result:
        names = [*PHASES, "training_step_512", "training_step_1024"]
        phases = {name: Peak(reserved - 1, reserved) for name in names if name != drop}
        measured = Measurement(phases, {512: 1.5, 1024: 2.0}, batch_size=1, steps=12, host_gib=13.456, card_gib=11.2)
        values: dict[str, Any] = {
            "date": "2026-12-01",
            "gpu": "NVIDIA H200",
            "simpletuner": "4.8.0",
            "cap_gib": candidate.cap_gib,
            "ok": True,
            "shims": ("thread_queue", "no_tracing"),
            "run": "2026-12-01T10:00:00+00:00",
        }
        return result_of(candidate, measured, **{**values, **changes})

    return make


def test_each_class_has_at_least_three_candidates_of_different_settings() -> None:
    for vram in ("12gb", "16gb", "24gb", "48gb"):
        digests = {one.digest for one in CANDIDATES if one.vram == vram}
        assert len(digests) == sum(one.vram == vram for one in CANDIDATES) >= 3


def test_the_precisions_and_the_offloads_to_compare_are_there() -> None:
    options = [one.settings.options for one in CANDIDATES]
    precisions = {str(one["base_model_precision"]) for one in options}
    assert {"int8-quanto", "int8-torchao", "nf4-bnb", "fp8-torchao", "int8-sdnq", "no_change"} <= precisions
    for name in ("musubi_blocks_to_swap", "enable_group_offload", "ramtorch", "dynamo_backend", "attention_mechanism"):
        assert any(name in one for one in options)
    assert {one.get("quantize_via") for one in options} >= {"cpu", "accelerator"}


def test_the_release_that_is_measured_takes_every_candidate() -> None:
    schema = load_schema("4.8.0")
    for one in CANDIDATES:
        problems = check_options({f"--{name}": value for name, value in one.settings.options.items()}, schema)
        assert [problem for problem in problems if problem.name in one.settings.options] == []


@pytest.mark.parametrize(("profile", "name"), [
    ("12gb", "uint5-sdnq-compile"), ("12gb-nf4", "nf4"), ("16gb", "int8-quanto-unsloth"), ("24gb", "guide"),
    ("24gb-fast", "int8-quanto-b3-segments"), ("48gb", "bf16"), ("48gb-fast", "bf16-b4"),
])  # fmt: skip
def test_a_candidate_that_is_the_shipped_profile_has_its_digest_and_proves_it(profile: str, name: str) -> None:
    (one,) = (one for one in CANDIDATES if (one.vram, one.settings.name) == (vram_class(profile), name))
    assert one.digest == load_profile(profile).measured.settings
    assert one.profile == profile


def test_a_rehearsal_on_a_model_of_ones_own_says_what_ram_it_takes(tmp_path: Path) -> None:
    given = argparse.Namespace(base=tmp_path / "flux", work=tmp_path)
    assert profiles._rehearsal(given).base == tmp_path / "flux" / "base"
    assert not (tmp_path / "tiny-flux").exists()
    assert profiles._rehearsal(argparse.Namespace(base=None, work=tmp_path)).base.is_relative_to(tmp_path / "tiny-flux")


def test_results_come_back_and_the_newest_of_a_candidate_counts(tmp_path: Path, result_for: Results) -> None:
    path = tmp_path / "results.jsonl"
    assert read_results(path) == []
    append_result(path, result_for(ok=False, reason="out of memory"))
    append_result(path, result_for())
    assert read_results(path) == [result_for()]


def test_the_table_compares_with_the_baseline_and_names_what_ran_out_of_memory(result_for: Results) -> None:
    (guide,) = (one for one in CANDIDATES if one.baseline and one.vram == "24gb")
    others = [one for one in CANDIDATES if one.vram == guide.vram and not one.baseline]
    fast = replace(result_for(others[0]), seconds_per_step={1024: 2.0}, batch_size=2)
    failed = result_for(others[1], ok=False, reason="CUDA out of memory | 2 GiB")
    failed = replace(failed, ended_in="training_step")
    tight = result_for(others[2], reserved=22.0)
    lines = table([result_for(guide), fast, failed, tight]).splitlines()
    assert lines[0] == "### 24gb: NVIDIA H200, SimpleTuner 4.8.0, allocator capped at 22.5 GiB"
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines[4:]}
    assert "1.00 (2.00×)" in rows[others[0].settings.name]
    assert "no (training step): CUDA out of memory / 2 GiB" in rows[others[1].settings.name]
    assert "too little left" in rows[others[2].settings.name]
    assert "by-hand (compared with)" in rows
    assert {line.count("|") for line in lines[2:]} == {10}


def test_times_of_two_runs_are_not_compared(result_for: Results) -> None:
    """Their machines may differ: two H200s took 1.44 and 1.90 s with one profile."""
    (guide,) = (one for one in CANDIDATES if one.baseline and one.vram == "24gb")
    other = next(one for one in CANDIDATES if one.vram == guide.vram and not one.baseline)
    rows = [replace(result_for(other), run=run, name=run or "unknown") for run in (result_for().run, "another", "")]
    lines = table([result_for(guide), *rows]).splitlines()[-3:]
    assert ["×" in line for line in lines] == [True, False, False]
    assert "×" not in table([replace(result_for(guide), run=""), rows[2]])


def test_times_of_a_trainer_that_traced_are_not_compared_with_one_that_does_not(result_for: Results) -> None:
    (guide,) = (one for one in CANDIDATES if one.baseline and one.vram == "24gb")
    other = next(one for one in CANDIDATES if one.vram == guide.vram and not one.baseline)
    old, new = (replace(result_for(other), shims=shims, name=name) for shims, name in (((), "old"), (("a",), "new")))
    rows = table([result_for(guide), old, new]).splitlines()
    assert [line.split(" | ")[0] for line in rows[-2:]] == ["| old †", "| new"]
    assert ["×" in line for line in rows[-2:]] == [False, True]


def test_a_candidate_says_which_profile_it_proves() -> None:
    found = {one.settings.name: one.profile for one in CANDIDATES if one.vram == "24gb"}
    assert (found["guide"], found["int8-quanto-b3-segments"]) == ("24gb", "24gb-fast")


def test_the_report_goes_between_its_markers(tmp_path: Path, result_for: Results) -> None:
    path = tmp_path / "profiles.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_report(path, [result_for()])
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| nf4 | yes |" in text
    path.write_text("nothing")
    with pytest.raises(UserError, match="no place"):
        write_report(path, [result_for()])


def test_the_projects_own_document_has_places_for_both_tables(project_root: Path) -> None:
    text = (project_root / "docs" / "profiles.md").read_text()
    for mark in (BEGIN, END, "<!-- fidelity: begin -->", "<!-- fidelity: end -->"):
        assert text.count(mark) == 1


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return Path(shutil.copy(resource("profiles", "12gb-nf4.toml"), tmp_path / "12gb-nf4.toml"))


def test_a_proof_is_written_into_the_profile_and_its_reasons_stay(profile: Path, result_for: Results) -> None:
    before = profile.read_text()
    write_measurement(profile, result_for())
    after = profile.read_text()
    assert after.partition("[measured]")[0].strip() == before.partition("[measured]")[0].strip()
    measured = read_profile(profile).measured
    assert (str(measured.date), measured.gpu, measured.cap_gib) == ("2026-12-01", "NVIDIA H200", 11.0)
    assert (measured.peak_allocated_gib, measured.peak_reserved_gib, measured.card_gib) == (9.0, 10.0, 11.2)
    assert measured.seconds_per_step == {512: 1.5, 1024: 2.0}
    assert set(PHASES) <= set(measured.allocated_gib)
    assert measured.host_gib == 13.46


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reserved": 10.8}, "does not prove"),  # 11.0 with less than 5 % left
        ({"ok": False}, "does not prove"),
        ({"drop": "vae_caching"}, "Not everything was measured: vae_caching"),
    ],
)
def test_what_proves_nothing_is_not_written(
    profile: Path, result_for: Results, changes: dict[str, Any], message: str
) -> None:
    before = profile.read_text()
    with pytest.raises(UserError, match=message):
        write_measurement(profile, result_for(**changes))
    assert profile.read_text() == before


def test_a_measurement_of_other_settings_is_not_written(profile: Path, result_for: Results) -> None:
    profile.write_text(profile.read_text().replace("vae_batch_size = 1 ", "vae_batch_size = 2 "))
    with pytest.raises(UserError, match="other settings than the candidate nf4"):
        write_measurement(profile, result_for())


def test_the_digest_is_of_what_the_trainer_gets_alone() -> None:
    assert settings_digest({"options": {"a": 1}}) == settings_digest({"options": {"a": 1}, "measured": {"b": 2}})
    assert settings_digest({"options": {"a": 1}}) != settings_digest({"options": {"a": 2}})


def test_the_measurement_of_a_second_profile_goes_into_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result_for: Results
) -> None:
    (fast,) = (one for one in CANDIDATES if one.profile == "24gb-fast")
    fidelity = asdict(load_profile("24gb-fast").fidelity or pytest.fail("it is quantized"))
    settings = tomlkit.dumps({**{key: dict(getattr(fast.settings, key)) for key in SETTINGS}, "fidelity": fidelity})
    (tmp_path / "24gb-fast.toml").write_text(settings)
    monkeypatch.setattr(profiles, "resource", lambda *parts: tmp_path / parts[-1])
    proof = result_for(fast, reserved=20.0)
    assert profiles._write([fast], [result_for(), proof], Output()) == 0
    assert read_profile(tmp_path / "24gb-fast.toml").measured.peak_reserved_gib == 20.0
    with pytest.raises(UserError, match="takes one candidate"):
        profiles._write([fast], [result_for()], Output())


def test_candidates_come_in_the_order_of_the_command_line_and_by_their_class() -> None:
    def chosen(*names: str, vram: tuple[str, ...] = ()) -> list[str]:
        arguments = argparse.Namespace(candidate=list(names), vram=list(vram))
        return [f"{one.vram}/{one.settings.name}" for one in profiles._chosen(CANDIDATES, arguments)]

    assert chosen("48gb/bf16", "guide", "16gb/int8-torchao") == ["48gb/bf16", "24gb/guide", "16gb/int8-torchao"]
    assert chosen("int8-torchao", vram=("24gb",)) == ["24gb/int8-torchao"]
    assert len(chosen(vram=("12gb",))) == sum(one.vram == "12gb" for one in CANDIDATES)
    with pytest.raises(UserError, match="No candidate"):
        chosen("24gb/bf16")
