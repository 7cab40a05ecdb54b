"""First-block cache: which steps are computed, for each picture by itself, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from fluxkit.cli import cli
from fluxkit.errors import UserError
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.fastflux import FastFlux, StepRows, adaln_names
from fluxkit.sampling.first_block import BlockPasses, FirstBlockCache
from fluxkit.sampling.frame import FluxConfig, empty_source
from fluxkit.sampling.ops import PlainOps
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import Job, SamplingPlan, plan_jobs
from fluxkit.sampling.quantizers import Plain, RowQuantizer, check_first_block_cache, fastest
from fluxkit.sampling.writer import read_parameters

pytestmark = pytest.mark.usefixtures("_use_shared_cache")
SIZE: dict[str, Any] = {"width": 64, "height": 48, "num_inference_steps": 5, "guidance_scale": 3.0}
JOBS = plan_jobs({"one": "ohwx man", "two": "a cat"}, seeds=(1, 2), **SIZE)
# The tiny model's first block changes by 0.36 to 0.55 a step.
SOME = 0.45


class Rest:
    """The other blocks: they add 10 to every number, and remember for whom."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def __call__(self, image: torch.Tensor, _text: torch.Tensor, rows: Any) -> torch.Tensor:
        self.rows.append(rows["norm"][:, 0].tolist())
        return image.add_(10.0)  # in place, as the fused operations


def steps(cache: FirstBlockCache, *added: tuple[float, ...]) -> tuple[list[list[float]], list[list[float]]]:
    """Run steps, each given by what the first block adds to each picture; whose rows were computed, and the results."""
    rest, results = Rest(), []
    for step in added:
        change = torch.tensor(step)[:, None, None].expand(-1, 3, 4).clone()
        rows = {"norm": torch.arange(float(len(step)))[:, None].expand(-1, 6)}
        results.append(cache.through(change, change * 100, torch.zeros(len(step), 2, 4), rows, rest)[:, 0, 0].tolist())
    return rest.rows, results


def test_a_step_is_computed_for_the_pictures_that_changed() -> None:
    cache = FirstBlockCache(0.1, blocks=4)
    computed, results = steps(cache, (1.0, 1.0, 1.0), (1.05, 1.2, 1.0), (1.08, 1.08, 1.12), (1.0, 1.2, 1.2))
    # Compared with the last step that was computed, so that small changes don't add up unseen.
    assert computed == [[0, 1, 2], [1], [1, 2], [1]]
    assert results[1] == pytest.approx([115.0, 130.0, 110.0])
    assert results[2] == pytest.approx([118.0, 118.0, 122.0])
    cache.finish()
    assert cache.take_passes() == BlockPasses(all=4 * 3 * 4, saved=(2 + 1 + 2) * 3)
    assert cache.take_passes() == BlockPasses()


def test_a_new_batch_begins_anew_and_numbers_that_overflowed_are_not_kept() -> None:
    cache = FirstBlockCache(0.1, blocks=4)
    assert steps(cache, (1.0,), (1.0,))[0] == [[0]]
    cache.begin()
    assert steps(cache, (1.0,), (float("nan"),), (1.0,))[0] == [[0], [0], [0]]
    assert cache.take_passes() == BlockPasses(), "a batch that ran out of memory does not count"


def test_what_was_saved_is_said_in_words() -> None:
    assert BlockPasses(1140, 560).describe() == "First-block cache (lossy): 560 of 1,140 block passes saved (49%)."


def tiny_model(threshold: float | None) -> FastFlux:
    """One double and one single block with random weights, at the start of a batch of one picture and two steps."""
    config = FluxConfig({
        "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4,
        "joint_attention_dim": 6, "pooled_projection_dim": 5, "axes_dims_rope": (2, 2, 4),
    })  # fmt: skip
    shapes, random = empty_source(config), torch.Generator().manual_seed(3)

    def source(name: str) -> torch.Tensor:
        return torch.randn(shapes(name).shape, generator=random).bfloat16() * 0.2

    model = FastFlux(config, source, "bf16", PlainOps("bf16"))
    names = adaln_names(config)
    widths = tuple((3 if "single" in name else 2 if name == "norm_out" else 6) * config.width for name in names)
    model.begin(StepRows(tuple(names), widths, torch.randn(2, 1, sum(widths), generator=random).bfloat16()))
    model.first_block_cache = None if threshold is None else FirstBlockCache(threshold, 2)
    return model


def test_a_step_with_the_cache_is_never_recorded_as_a_graph() -> None:
    class Spy:
        asked = 0

        def __call__(self, work: Any, *inputs: torch.Tensor) -> Any:
            self.asked += 1
            return work(*inputs)

    made = {}
    for threshold in (None, 1e-6):
        model, spy = tiny_model(threshold), Spy()
        model.graph = spy  # type: ignore[assignment]
        given = (torch.ones(1, 4, 4).bfloat16(), torch.ones(1, 3, 6).bfloat16(), torch.zeros(3, 3), torch.zeros(4, 3))
        with torch.no_grad():
            made[threshold] = (spy, torch.cat([model(*given)[0] for _ in range(2)]))
    assert [spy.asked for spy, _ in made.values()] == [2, 0]
    assert made[None][1].equal(made[1e-6][1]), "computed in full, whichever way"


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "much"])
def test_a_threshold_that_makes_no_sense_is_a_usage_error(value: str) -> None:
    result = CliRunner().invoke(cli, ["sample", "--first-block-cache", value])
    assert result.exit_code == 2
    assert "--first-block-cache" in result.output


def test_help_calls_it_lossy() -> None:
    text = " ".join(CliRunner().invoke(cli, ["sample", "--help"]).output.split())
    assert "--first-block-cache THRESHOLD Lossy:" in text


def test_diffusers_transformer_is_refused_and_auto_avoids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="runs in diffusers'") as caught:
        check_first_block_cache("int8", 0.1)
    assert "--quantize auto" in caught.value.fix
    check_first_block_cache("int8", None)
    check_first_block_cache("fp8", 0.1)
    monkeypatch.setattr("fluxkit.sampling.quantizers.gpus", lambda **_: [])
    assert (fastest(compared=False), fastest(compared=True, cached=True)) == ("int8", "none")


def make(base: Path, quantizer: Any, threshold: float | None, jobs: tuple[Job, ...] = JOBS, batch: int = 2) -> Any:
    """Pictures as bytes by job, and what was said."""
    notices: list[str] = []
    sampler = FluxSampler(base, None, quantizer, on_notice=notices.append, first_block_cache=threshold)
    sampler.encode(job.prompt for job in JOBS)
    sampler.load_transformer((), 1.0)
    made = {job: image.tobytes() for job, image in sampler.images(jobs, batch) if image is not None}
    return made, notices


@pytest.mark.slow
def test_with_a_threshold_that_nothing_stays_under_the_pictures_are_the_same(tiny_flux: Path) -> None:
    plain, silence = make(tiny_flux, RowQuantizer("bf16"), None)
    computed, notices = make(tiny_flux, RowQuantizer("bf16"), 1e-6)
    assert computed == plain
    assert not silence
    # 4 pictures, 5 steps, 4 blocks.
    assert notices == ["First-block cache (lossy): 0 of 80 block passes saved (0%)."]


@pytest.mark.slow
def test_one_picture_is_what_diffusers_own_first_block_cache_makes(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel

    full, _ = make(tiny_flux, RowQuantizer("bf16"), None, JOBS[:1])
    ours, notices = make(tiny_flux, Plain(), SOME, JOBS[:1])  # takes fluxkit's transformer for it
    assert ours != full
    assert " 0 of " not in notices[-1]

    real = FluxTransformer2DModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def cached(cls: Any, *args: Any, **options: Any) -> Any:
        model = real(cls, *args, **options)
        model.enable_cache(FirstBlockCacheConfig(threshold=SOME))
        return model

    monkeypatch.setattr(FluxTransformer2DModel, "from_pretrained", classmethod(cached))
    assert make(tiny_flux, Plain(), None, JOBS[:1])[0] == ours


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_a_picture_does_not_depend_on_its_batch_mates(
    tiny_flux: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[list[float]] = []
    real = FirstBlockCache._changed

    def spied(self: FirstBlockCache, added: torch.Tensor) -> list[int]:
        if self._first is not None:
            pairs = zip(added.float(), self._first.float(), strict=True)
            changes.append([float((one - two).abs().mean() / two.abs().mean()) for one, two in pairs])
        return real(self, added)

    monkeypatch.setattr(FirstBlockCache, "_changed", spied)
    make(tiny_flux, RowQuantizer(kind), 1e-6, batch=4)
    # Where the four pictures of the first step lie furthest apart: some are computed there, and some are not.
    first = sorted(changes[0])
    gap = max(range(3), key=lambda number: first[number + 1] - first[number])
    threshold = (first[gap] + first[gap + 1]) / 2
    together, notices = make(tiny_flux, RowQuantizer(kind), threshold, batch=4)
    sizes: list[int] = []
    monkeypatch.setattr(FirstBlockCache, "_changed", lambda self, added: _counted(real(self, added), sizes))
    again, _ = make(tiny_flux, RowQuantizer(kind), threshold, batch=4)
    assert any(0 < size < 4 for size in sizes), sizes
    assert again == together
    alone, said = make(tiny_flux, RowQuantizer(kind), threshold, batch=1)
    assert alone == together
    assert said == notices


def _counted(chosen: list[int], sizes: list[int]) -> list[int]:
    sizes.append(len(chosen))
    return chosen


@pytest.mark.slow
def test_streamed_blocks_that_are_skipped_change_nothing(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkit.sampling import fast_sampler
    from fluxkit.sampling.memory import predicted_bytes

    resident, _ = make(tiny_flux, RowQuantizer("int8"), SOME)
    sampler = FluxSampler(tiny_flux, None, RowQuantizer("int8"), first_block_cache=SOME, on_notice=lambda _: None)
    sampler.load_transformer((), 1.0)
    assert sampler._fast is not None
    needed = predicted_bytes(sampler._fast._loaded.sizes, 4, 1, 64, 48)
    monkeypatch.setattr(fast_sampler, "free_gpu_bytes", lambda _device: needed)
    streamed, notices = make(tiny_flux, RowQuantizer("int8"), SOME)
    assert "4 blocks streamed" in notices[0]
    assert streamed == resident


@pytest.mark.slow
def test_it_stays_on_where_kept_weights_can_t_be_read_and_are_made_again(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxkit.sampling import reading

    expected = make(tiny_flux, RowQuantizer("int8"), SOME)
    real, failures = reading.read_tensors, []

    def failing(file: Any, device_of: Any) -> Any:
        if any(name.startswith("doubles") for name in file.entries):
            failures.append(file.path)
            raise OSError("the disk failed")
        return real(file, device_of)

    monkeypatch.setattr(reading, "read_tensors", failing)
    assert make(tiny_flux, RowQuantizer("int8"), SOME) == expected
    assert len(failures) == 1


@pytest.mark.slow
def test_another_threshold_is_another_image_that_says_so(
    tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(threshold: float | None, quantize: Any = "none") -> Any:
        plan = SamplingPlan(tiny_flux, None, {}, quantize, JOBS[:1], 1, tmp_path / "out", first_block_cache=threshold)
        return sample(plan, on_progress=lambda *_: None)

    assert [run(None).made, run(SOME).made, run(0.6).made, run(SOME).made] == [1, 1, 1, 0]
    assert "block passes saved" in capsys.readouterr().err
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["images"].values()
    files = {one["first_block_cache"]: tmp_path / "out" / one["file"] for one in entries}
    assert files.keys() == {None, SOME, 0.6}
    assert "First block cache: 0.45 (lossy)" in str(read_parameters(files[SOME]))
    assert "First block cache" not in str(read_parameters(files[None]))
    assert '"cache": 0.45' in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(UserError, match="diffusers"):
        run(SOME, "int8")
