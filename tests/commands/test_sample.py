"""`fluxkit sample` with the tiny model: which images the options mean, and where they go."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands.chosen import parse_adapter
from fluxkit.commands.gallery import grid
from fluxkit.commands.sample import sample
from fluxkit.commands.sample_options import chosen_seeds, read_prompts
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.hardware import Gpu
from fluxkit.sampling.bases import DEV, KREA, SCHNELL, base_model
from fluxkit.trainer.runs import new_run
from tests.projects import start_project

QUIET = Output(verbosity=-1)
Seen = list[Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fluxkit.sampling.tiny_flux import make_tiny_flux

    return make_tiny_flux(tmp_path_factory.mktemp("models") / "tiny-flux")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three LoRAs of one layer of the tiny model."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("adapters")
    paths = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        tensors = {
            f"transformer.transformer_blocks.0.attn.to_q.lora_{half}.weight": torch.randn(*shape, generator=generator)
            for half, shape in (("A", (4, 64)), ("B", (64, 4)))
        }
        paths.append(folder / f"style-{seed}.safetensors")
        save_file(tensors, paths[-1])
    return paths


@pytest.fixture
def project(tmp_path: Path, tiny: Path, adapters: list[Path]) -> Path:
    """A project with a finished run: two checkpoints and the final weights."""
    start_project(tmp_path)
    record = {
        "rehearsal": False,
        "base": str(tiny),
        "revision": None,
        "release": "4.8.0",
        "steps": 3,
        "adapter": "standard",
    }
    run = new_run(tmp_path / "runs", record).update(status="finished")
    for step, path in ((500, adapters[0]), (1000, adapters[1])):
        (run.output_dir / f"checkpoint-{step}").mkdir(parents=True)
        shutil.copy(path, run.output_dir / f"checkpoint-{step}" / "pytorch_lora_weights.safetensors")
    shutil.copy(adapters[2], run.final_weights)
    return tmp_path


@pytest.fixture
def make(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`sample` whose batcher only looks at the plan; returns the plan."""

    def run(**options: Any) -> Any:
        seen: Seen = []

        def look(plan: Any, **_: Any) -> Any:
            seen.append(plan)
            raise UserError("looked")

        monkeypatch.setattr("fluxkit.sampling.batcher.sample", look)
        with pytest.raises(UserError, match="looked"):
            sample(project, **{"seeds": "1", "prompt": ("a man",)} | options, out=QUIET)
        return seen[0]

    return run


def models(plan: Any) -> list[tuple[str, float]]:
    return list(dict.fromkeys((job.adapter, job.strength) for job in plan.jobs))


@pytest.mark.parametrize(
    ("checkpoint", "names", "folder"),
    [
        (None, ["final"], "-final"),
        ("latest", ["final"], "-final"),
        ("500", ["checkpoint-500"], "-checkpoint-500"),
        ("1000,500", ["checkpoint-1000", "checkpoint-500"], "-checkpoints"),
        ("all", ["checkpoint-500", "checkpoint-1000", "final"], "-checkpoints"),
        ("base,final", ["", "final"], "-checkpoints"),
    ],
)
def test_checkpoints(make: Callable[..., Any], checkpoint: str | None, names: list[str], folder: str) -> None:
    plan = make(checkpoint=checkpoint)
    assert list(dict.fromkeys(job.adapter for job in plan.jobs)) == names
    assert plan.out.name.endswith(folder)
    assert plan.wrapped == (len(names) > 1)
    assert all(plan.stack(name)[0].path.is_file() for name in names if name)


@pytest.mark.parametrize(("capability", "alone"), [((9, 0), "fp8"), ((8, 6), "int8-dynamic"), (None, "int8")])
def test_a_new_project_takes_what_the_gpu_does_well_and_says_so(
    make: Callable[..., Any], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    capability: tuple[int, int] | None, alone: str,
) -> None:  # fmt: skip
    found = [Gpu("a card", 2**34, 2**34, "580", capability=capability)] if capability else []
    monkeypatch.setattr("fluxkit.sampling.quantizers.gpus", lambda **_: found)
    assert make().quantize == alone
    for options in ({"checkpoint": "500,final"}, {"strength": "0.5,1"}):
        compared = make(**options)
        assert (compared.quantize, compared.wrapped) == ("int8", True)
    assert make(quantize="none").quantize == "none"
    with pytest.raises(UserError, match="looked"):
        sample(project, seeds="1", prompt=("a man",), out=Output())
    assert f"{alone}, which `auto` means here" in capsys.readouterr().out
    toml = project / "fluxkit.toml"
    toml.write_text(toml.read_text().replace('quantize = "auto"', 'quantize = "int8"'))
    assert make().quantize == "int8", "an older project keeps what init wrote"


def test_every_list_is_an_axis(make: Callable[..., Any]) -> None:
    plan = make(
        checkpoint="500,final", strength="0.5,1", guidance_scale="2,3,4", num_inference_steps="10,20", seeds="7,11",
        prompt=("one", "two"),
    )  # fmt: skip
    assert len(set(plan.jobs)) == 2 * 2 * 3 * 2 * 2 * 2


def test_adapters_from_elsewhere_need_no_run(
    make: Callable[..., Any], project: Path, adapters: list[Path], tiny: Path
) -> None:
    shutil.rmtree(project / "runs")
    plan = make(adapter=(f"{adapters[0]}:0.5", str(adapters[1])), base=str(tiny))
    assert models(plan) == [("style-0@0.5+style-1", 1.0)]
    assert [one.weight for one in plan.stack("style-0@0.5+style-1")] == [0.5, 1.0]
    assert not plan.wrapped


def test_adapters_from_elsewhere_join_a_checkpoint(make: Callable[..., Any], adapters: list[Path]) -> None:
    plan = make(adapter=(f"{adapters[0]}:0.5",), checkpoint="500,final")
    assert models(plan) == [("checkpoint-500+style-0@0.5", 1.0), ("final+style-0@0.5", 1.0)]
    assert len(plan.stack("final+style-0@0.5")) == 2


def test_a_folder_with_one_adapter_is_that_adapter(tmp_path: Path, adapters: list[Path]) -> None:
    (tmp_path / "likeness").mkdir()
    shutil.copy(adapters[0], tmp_path / "likeness" / "pytorch_lora_weights.safetensors")
    assert parse_adapter(f"{tmp_path / 'likeness'}:0.7").weight == 0.7
    with pytest.raises(UserError, match="3 adapters"):
        parse_adapter(str(adapters[0].parent))
    with pytest.raises(UserError, match="no adapter"):
        parse_adapter(str(tmp_path / "gone.safetensors"))
    with pytest.raises(UserError, match="no weight"):
        parse_adapter(f"{adapters[0]}:nan")


def test_an_adapter_of_the_hub_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file: f"/cache/{repo}/{file}")
    files = ["README.md", "style.safetensors"]
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda _self, _repo: files)
    assert parse_adapter("owner/style:0.5").path == Path("/cache/owner/style/style.safetensors")
    assert parse_adapter("owner/style/a/b.safetensors").path == Path("/cache/owner/style/a/b.safetensors")
    files.append("other.safetensors")
    with pytest.raises(UserError, match="2 adapters"):
        parse_adapter("owner/style")


def test_prompts_of_a_text_file(make: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("\ufeff# a comment\n{trigger} in a red coat\n\n  reading {{ 7 }}\n", encoding="utf-8")
    assert read_prompts(file) == ["{trigger} in a red coat", "reading {{ 7 }}"]
    assert [job.prompt for job in make(prompt=(), prompts=file).jobs] == [
        "behitek in a red coat",
        "behitek reading {{ 7 }}",
    ]
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="can't be read"):
        read_prompts(file)


def test_seeds_are_counted_listed_or_drawn() -> None:
    assert chosen_seeds(None, 42, 3) == (42, 43, 44)
    assert chosen_seeds("2", 42, 30) == (42, 43)
    assert chosen_seeds("7,", 42, 30) == (7,)
    drawn = chosen_seeds("random:4", 42, 30)
    assert len(set(drawn)) == 4
    assert drawn != chosen_seeds("random:4", 42, 30)
    for text in ("x", "1.5", "random:x", "-3"):
        with pytest.raises(UserError, match="--seeds"):
            chosen_seeds(text, 42, 30)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"checkpoint": "7"}, "no checkpoint 7"),
        ({"strength": "x"}, "--strength"),
        ({"num_inference_steps": "0"}, "--num-inference-steps"),
        ({"guidance_scale": "a"}, "--guidance-scale"),
        ({"grid": "seed"}, "pair of axes"),
        ({"size": "64"}, "WIDTHxHEIGHT"),
        ({"run_id": "20200101-001"}, "no run"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_loaded(
    project: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        sample(project, **{"seeds": "1", "prompt": ("a man",)} | options, out=QUIET)


def test_each_base_has_its_own_defaults(make: Callable[..., Any], tiny: Path, tmp_path: Path) -> None:
    assert base_model("black-forest-labs/FLUX.1-dev") == DEV
    assert base_model("black-forest-labs/FLUX.1-Krea-dev") == KREA
    assert base_model("black-forest-labs/FLUX.1-schnell") == SCHNELL
    assert base_model(tiny) == DEV
    schnell = tmp_path / "tuned"
    shutil.copytree(tiny, schnell)
    config = json.loads((schnell / "transformer" / "config.json").read_text())
    (schnell / "transformer" / "config.json").write_text(json.dumps({**config, "guidance_embeds": False}))
    jobs = make(base=str(schnell)).jobs
    assert {(job.num_inference_steps, job.guidance_scale) for job in jobs} == {(4, 0.0)}
    jobs = make(base=str(schnell), num_inference_steps="2", guidance_scale="3").jobs
    assert {(job.num_inference_steps, job.guidance_scale) for job in jobs} == {(2, 0.0)}, "what was asked for wins"
    toml = tmp_path / "fluxkit.toml"
    toml.write_text(toml.read_text().replace("num_inference_steps = 20", "num_inference_steps = 8"))
    assert {job.num_inference_steps for job in make(base=str(schnell)).jobs} == {8}


def test_schnell_gets_its_own_text_length(tiny: Path, tmp_path: Path) -> None:
    from fluxkit.sampling.pipeline import FluxSampler
    from fluxkit.sampling.quantizers import quantizer

    schnell = tmp_path / "FLUX.1-schnell"
    shutil.copytree(tiny, schnell)
    config = json.loads((schnell / "transformer" / "config.json").read_text())
    (schnell / "transformer" / "config.json").write_text(json.dumps({**config, "guidance_embeds": False}))
    for base, tokens in ((tiny, 512), (schnell, 256)):
        sampler = FluxSampler(base, None, quantizer("none"))
        sampler.encode(["ohwx"])
        assert sampler._embeddings["ohwx"].prompt.shape[1] == tokens


def test_the_whole_matrix_is_made_with_a_sheet(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {
        "checkpoint": "base,500,final", "strength": "0.5,1", "seeds": "1,2", "prompt": ("a man",), "size": "64x48",
        "num_inference_steps": "1", "image_format": "webp", "grid": "checkpoint,strength",
    }  # fmt: skip
    sample(project, **options, out=Output(as_json=True))
    report = json.loads(capsys.readouterr().out)
    assert report["made"] == 2 * 5
    assert set(report["effects"]) == {"checkpoint-500", "final"}
    folder = Path(report["galleries"][0]).parent
    entries = json.loads((folder / "manifest.json").read_text())["images"].values()
    assert len({entry["sha256"] for entry in entries}) == 10, "each model makes another image"
    assert all(entry["file"].endswith(".webp") for entry in entries)
    assert len(report["grids"]) == 2
    assert grid(project, folder=None, x="checkpoint", y="strength", out=QUIET) == [Path(one) for one in report["grids"]]
    assert all(Path(one).name in Path(report["galleries"][0]).read_text() for one in report["grids"])
    capsys.readouterr()
    sample(project, **options, out=Output(as_json=True))
    assert json.loads(capsys.readouterr().out)["made"] == 0
