"""A project renders for every release; an upgrade in steps ends where one in a jump does. By schemas, no installs."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from packaging.version import Version

from fluxkit.commands.assemble import Assembled, assemble, open_project
from fluxkit.errors import UserError
from fluxkit.rendering.render import render
from fluxkit.rendering.settings import KnownDefect, Rehearsal
from fluxkit.trainer.options import migrate, vanished_options
from fluxkit.trainer.releases import find_release, releases
from fluxkit.trainer.schema import check_options, load_schema

RELEASES = [release.version for release in releases()]
CHAIN = ("2.2.1", "3.1.6", "3.3.4", "4.0.6", "4.8.0", "4.10.1")
# Each is not the default, or is written by a name that some release of the chain doesn't have.
OPTIONS = {
    "ignore_final_epochs": True,
    "flux_schedule_shift": 2.0,
    "base_model_precision": "fp8-torchao",
    "text_encoder_1_precision": "fp8-torchao",
    "fused_qkv_projections": True,
    "snr_gamma": 5.0,
    "validation_torch_compile": False,
    "--validation-guidance": 3.5,
    "gradient_accumulation_steps": 2,
    "caption_dropout_probability": 0.05,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "lora_rank": 8,
}


def rendered(
    root: Path,
    release: str,
    options: dict[str, Any] | None = None,
    *,
    profile: str = "24gb",
    adapter: str = "lycoris",
    rehearsal: Rehearsal | None = None,
) -> Assembled:
    settings = {
        "project": {"name": "p", "trigger": "behitek"},
        "model": {"adapter": adapter},
        "train": {"profile": profile, "options": options or {}},
        "simpletuner": {"version": release, "platform": "cuda", "source": find_release(release).sources[0]},
    }
    (root / "fluxkit.toml").write_text(tomlkit.dumps(settings), encoding="utf-8")
    (root / "prompts.toml").write_text('[prompts]\none = "{trigger} on a cliff"\n', encoding="utf-8")
    return assemble(open_project(root), config_dir=root / "config", output_dir=root / "output", rehearsal=rehearsal)


def config_of(assembled: Assembled) -> dict[str, Any]:
    document: Any = assembled.rendered.documents["config.json"]
    return {name.removeprefix("--"): value for name, value in document.items()}


@pytest.mark.parametrize("adapter", ["lycoris", "standard"])
@pytest.mark.parametrize("profile", ["12gb", "12gb-nf4", "24gb"])
@pytest.mark.parametrize("release", RELEASES)
def test_every_release_knows_every_option_that_is_rendered(
    tmp_path: Path, release: str, profile: str, adapter: str
) -> None:
    config = config_of(rendered(tmp_path, release, profile=profile, adapter=adapter))
    assert check_options(config, load_schema(release)) == []
    small = "uint5-sdnq" if Version(release) >= Version("4.8.0") else "nf4-bnb"
    assert config["base_model_precision"] == {"12gb": small, "12gb-nf4": "nf4-bnb", "24gb": "int8-quanto"}[profile]
    assert ("lycoris_config" in config) is (adapter == "lycoris")


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_takes_a_rehearsal(tmp_path: Path, release: str) -> None:
    config = config_of(rendered(tmp_path, release, rehearsal=Rehearsal(tmp_path / "tiny")))
    assert config["max_train_steps"] == 4


@pytest.mark.parametrize("release", RELEASES)
def test_a_project_with_options_of_every_age_renders_for_every_release(tmp_path: Path, release: str) -> None:
    options = {**OPTIONS, "checkpoints_total_limit": 3}
    if release < "2":  # QKV fusion came later: nothing that a name could mend
        del options["fused_qkv_projections"]
    config = config_of(rendered(tmp_path, release, options))
    assert config["checkpoints_total_limit"] == 3


def upgraded(options: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    assert vanished_options(options, load_schema(old), load_schema(new)) == []
    return migrate(options, old, new)


def test_what_is_claimed_of_a_release_is_in_the_table_of_runs(project_root: Path) -> None:
    page = (project_root / "docs" / "compatibility.md").read_text(encoding="utf-8")
    lines = page.split("<!-- table -->\n")[1].split("<!-- end -->")[0].splitlines()
    table = {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])}
    assert list(table) == RELEASES
    for release in releases():
        _, _, installs, accepted, trains, samples = table[release.version]
        seen = [cell == "yes" for cell in (accepted, trains, samples)]
        claimed = release.tested
        assert [claimed.parsed, claimed.rehearsed, claimed.sampled] == seen, release.version
        assert (installs == "yes") is bool(release.locks)


def test_an_upgrade_in_steps_ends_where_one_jump_does(tmp_path: Path) -> None:
    stepwise = dict(OPTIONS)
    for old, new in pairwise(CHAIN):
        stepwise = upgraded(stepwise, old, new)
        rendered(tmp_path, new, stepwise)
    jump = upgraded(OPTIONS, CHAIN[0], CHAIN[-1])
    assert stepwise == jump
    step, leap = (rendered(tmp_path, CHAIN[-1], options) for options in (stepwise, jump))
    assert json.dumps(step.rendered.documents) == json.dumps(leap.rendered.documents)
    config = config_of(leap)
    assert {name: config[name] for name in ("strict_epoch_limit", "flow_schedule_shift", "fuse_qkv_projections")} == {
        "strict_epoch_limit": False,
        "flow_schedule_shift": 2.0,
        "fuse_qkv_projections": True,
    }
    assert (config["base_model_precision"], config["snr_gamma"], config["lora_rank"]) == ("fp8wo-torchao", 5, 8)
    # The user's spelling stays.
    assert set(jump) == set(OPTIONS)


def test_the_way_back_renders_what_it_started_from(tmp_path: Path) -> None:
    before = config_of(rendered(tmp_path, CHAIN[0], OPTIONS))
    there = upgraded(OPTIONS, CHAIN[0], CHAIN[-1])
    assert config_of(rendered(tmp_path, CHAIN[0], upgraded(there, CHAIN[-1], CHAIN[0]))) == before


def test_what_a_release_dies_on_is_replaced_and_said(tmp_path: Path) -> None:
    assembled = rendered(tmp_path, "4.10.1")
    assert config_of(assembled)["report_to"] == "none"
    assert assembled.rendered.settings["report_to"].origin == "SimpleTuner 4.10.1"
    (note,) = assembled.rendered.notes
    assert "report_to 'tensorboard' does not work with SimpleTuner 4.10.1" in note
    assert config_of(rendered(tmp_path, "4.8.0"))["report_to"] == "tensorboard"


def test_a_profile_whose_repair_is_not_bound_to_the_release_says_so(tmp_path: Path) -> None:
    def said(release: str) -> list[str]:
        return [note for note in rendered(tmp_path, release, profile="12gb-nf4").rendered.notes if "linear4bit" in note]

    assert said("4.8.0") == []
    assert "more memory" in said("4.10.1")[0]


@pytest.mark.parametrize("value", ["tensorboard", "wandb, TensorBoard", ["wandb", "tensorboard"]])
def test_what_a_release_dies_on_is_refused_where_the_user_asked_for_it(tmp_path: Path, value: object) -> None:
    with pytest.raises(UserError, match="before the first step") as error:
        rendered(tmp_path, "4.10.1", {"report_to": value})
    assert "[train.options]" in error.value.fix


def test_what_a_release_no_longer_takes_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no longer takes"):
        rendered(tmp_path, "4.10.1", {"report_to": "all"})
    assert config_of(rendered(tmp_path, "4.8.0", {"report_to": "all"}))["report_to"] == "all"


def test_a_false_that_a_release_would_drop_is_refused(tmp_path: Path) -> None:
    # A release without a shipped schema: rendering is asked alone.
    defects = [d for d in find_release("3.0.4").defects if d.option == "gradient_checkpointing"]
    request = replace(rendered(tmp_path, "3.1.6", {"gradient_checkpointing": False}).request, release="3.0.4")
    known = tuple(KnownDefect(d.option, d.value, d.replacement, d.reason) for d in defects)
    with pytest.raises(UserError, match="drops every false"):
        render(replace(request, defects=known))
    assert [d for d in find_release("3.0.7").defects if d.option == "gradient_checkpointing"] == []


def test_the_attention_of_the_measurements_is_kept(tmp_path: Path) -> None:
    assert config_of(rendered(tmp_path, "4.10.1"))["attention_mechanism"] == "diffusers"
    mine = config_of(rendered(tmp_path, "4.10.1", {"attention_mechanism": "kohaku-fa-auto"}))
    assert mine["attention_mechanism"] == "kohaku-fa-auto"
