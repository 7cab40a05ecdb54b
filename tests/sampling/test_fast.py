"""The transformer rearranged for sampling: equal to diffusers', whatever is kept, streamed or tabled."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkit.errors import GpuMemoryError, UserError
from fluxkit.files import sha256_file
from fluxkit.sampling import fast_loader, pipeline
from fluxkit.sampling.batcher import sample
from fluxkit.sampling.memory import predicted_bytes
from fluxkit.sampling.pipeline import FluxSampler
from fluxkit.sampling.plan import AdapterWeight, Job, SamplingPlan, plan_jobs
from fluxkit.sampling.quantizers import Plain, RowQuantizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_use_shared_cache")]  # each loads a model
SIZE: dict[str, Any] = {"width": 64, "height": 48, "num_inference_steps": 2, "guidance_scale": 3.0}
JOBS = plan_jobs({"one": "ohwx man", "two": "a cat"}, seeds=(1, 2), **SIZE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _use_shared_cache: None) -> Path:
    """Empty, of one test."""
    monkeypatch.setenv("FLUXKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sampling"


def silent(*_: object) -> None:
    """No notice, no progress."""


def pictures(sampler: FluxSampler, jobs: tuple[Job, ...] = JOBS, batch: int = 2) -> list[bytes]:
    return [image.tobytes() for _, image in sampler.images(jobs, batch) if image is not None]


def sampler_of(
    base: Path,
    kind: Any,
    adapter: Path | None = None,
    strength: float = 1.0,
    on_notice: Callable[[str], None] = silent,
) -> FluxSampler:
    quantizer = RowQuantizer(kind) if kind else Plain()
    sampler = FluxSampler(base, None, quantizer, on_notice=on_notice)
    sampler.encode(job.prompt for job in JOBS)
    sampler.load_transformer((AdapterWeight(adapter),) if adapter else (), strength)
    return sampler


def test_in_bfloat16_it_is_diffusers_transformer_to_the_bit(tiny_flux: Path, lokr_file: Path) -> None:
    expected = pictures(sampler_of(tiny_flux, None, lokr_file))
    assert pictures(sampler_of(tiny_flux, "bf16", lokr_file)) == expected
    assert len(set(expected)) == 4


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_rows_of_eight_bits_stay_near_and_don_t_depend_on_the_batch(tiny_flux: Path, kind: str) -> None:
    import numpy as np

    plain = pictures(sampler_of(tiny_flux, None))
    quantized = pictures(sampler_of(tiny_flux, kind))
    assert quantized != plain
    difference = [
        np.frombuffer(a, np.uint8).astype(int) - np.frombuffer(b, np.uint8)
        for a, b in zip(plain, quantized, strict=True)
    ]
    assert np.abs(difference).mean() < 3  # of 255
    assert pictures(sampler_of(tiny_flux, kind), batch=1) == quantized


def test_a_second_start_reads_what_the_first_made(
    tiny_flux: Path, lokr_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pictures(sampler_of(tiny_flux, "fp8", lokr_file))
    kept = {path.parent.name for path in cache.glob("*/*.safetensors")}
    assert kept == {"prompts", "transformers", "tables"}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read the base model's weights again")

    monkeypatch.setattr(fast_loader, "BaseWeights", never)
    monkeypatch.setattr(pipeline.PromptEncoder, "_encode", never)
    again = sampler_of(tiny_flux, "fp8", lokr_file)
    assert pictures(again) == first
    assert again.load_transformer((AdapterWeight(lokr_file),), 1.0) == 30


def test_another_strength_is_another_entry(tiny_flux: Path, lokr_file: Path) -> None:
    whole = pictures(sampler_of(tiny_flux, "fp8", lokr_file, 1.0))
    assert pictures(sampler_of(tiny_flux, "fp8", lokr_file, 0.5)) != whole


@pytest.mark.parametrize("damage", ["truncated", "another"])
def test_a_damaged_entry_is_made_again(tiny_flux: Path, cache: Path, damage: str) -> None:
    first = pictures(sampler_of(tiny_flux, "int8"))
    for kind in ("prompts", "transformers", "tables"):
        entries = sorted((cache / kind).glob("*.safetensors"))
        for path in entries:
            whole = path.read_bytes()
            other = entries[0].read_bytes() if path != entries[0] else b""
            path.write_bytes({"truncated": whole[: len(whole) // 2], "another": other or b"x" * len(whole)}[damage])
    assert pictures(sampler_of(tiny_flux, "int8")) == first
    assert pictures(sampler_of(tiny_flux, "int8")) == first


def test_the_cache_can_be_switched_off(tiny_flux: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXKIT_SAMPLING_CACHE_GB", "0")
    sampler_of(tiny_flux, "fp8")
    assert not list(cache.glob("*/*.safetensors"))
    monkeypatch.setenv("FLUXKIT_SAMPLING_CACHE_GB", "much")
    with pytest.raises(UserError, match="no number"):
        sampler_of(tiny_flux, "fp8")


def test_streamed_blocks_make_the_same_pictures(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkit.sampling import fast_sampler

    resident = pictures(sampler_of(tiny_flux, "fp8"))
    notices: list[str] = []
    sizes = sampler_of(tiny_flux, "fp8")._fast._loaded.sizes  # type: ignore[union-attr]
    needed = predicted_bytes(sizes, 0, 1, 64, 48)
    for free, streamed in ((needed - 1, True), (2**33, False)):
        monkeypatch.setattr(fast_sampler, "free_gpu_bytes", lambda _device, free=free: int(free))
        sampler = sampler_of(tiny_flux, "fp8", on_notice=notices.append)
        sampler.auto_batch_size(JOBS[0])
        assert ("streamed" in notices[-1]) == streamed, notices
        assert pictures(sampler, batch=1 if streamed else 2) == resident


def test_out_of_memory_climbs_down_the_ladder_and_says_so(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fluxkit.sampling import fast_sampler
    from fluxkit.sampling.fastflux import FastFlux

    expected = pictures(sampler_of(tiny_flux, "int8"))
    monkeypatch.setattr(fast_sampler, "free_gpu_bytes", lambda _device: 2**35)
    notices: list[str] = []
    real = FastFlux.forward

    def small(self: Any, hidden_states: Any, **given: Any) -> Any:
        if hidden_states.shape[0] > 1 or self.streamer is None:
            raise torch.OutOfMemoryError("injected")
        return real(self, hidden_states, **given)

    monkeypatch.setattr(FastFlux, "forward", small)
    sampler = sampler_of(tiny_flux, "int8", on_notice=notices.append)
    assert pictures(sampler, batch=4) == expected
    assert [note.split(";")[0] for note in notices[1:]] == [
        "GPU memory ran out with 4 pictures at a time",
        "GPU memory ran out with 2 pictures at a time",
        "GPU memory ran out",
    ]


def test_tables_that_run_out_of_memory_give_up_what_a_batch_would(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fluxkit.sampling import fast_sampler

    expected = pictures(sampler_of(tiny_flux, "int8"))
    monkeypatch.setattr(fast_sampler, "free_gpu_bytes", lambda _device: 2**35)
    real = fast_loader.FastLoader.tables

    def small(self: Any, loaded: Any, *given: Any) -> Any:
        if loaded.model.streamer is None:
            raise torch.OutOfMemoryError("injected")
        return real(self, loaded, *given)

    monkeypatch.setattr(fast_loader.FastLoader, "tables", small)
    notices: list[str] = []
    sampler = sampler_of(tiny_flux, "int8", on_notice=notices.append)
    assert pictures(sampler, batch=1) == expected
    assert notices[-1].startswith("GPU memory ran out; ")


def test_weights_that_don_t_fit_after_all_are_streamed_and_it_says_so(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from fluxkit.sampling import fast_sampler

    expected = pictures(sampler_of(tiny_flux, "fp8"))
    monkeypatch.setattr(fast_sampler, "free_gpu_bytes", lambda _device: 2**35)
    real = fast_loader.Loaded.settle

    def small(self: Any, device: Any, streamed: int) -> None:
        if streamed < 2:
            raise torch.OutOfMemoryError("injected")
        real(self, device, streamed)

    monkeypatch.setattr(fast_loader.Loaded, "settle", small)
    notices: list[str] = []
    sampler = sampler_of(tiny_flux, "fp8", on_notice=notices.append)
    assert pictures(sampler, batch=1) == expected
    assert "2 of the model's blocks are streamed from RAM" in notices[2]
    monkeypatch.setattr(
        fast_loader.Loaded, "settle", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("injected"))
    )
    sampler.load_transformer((), 1.0)
    with pytest.raises(GpuMemoryError, match="not even with its blocks in RAM"):
        sampler.auto_batch_size(JOBS[0])


def test_kept_weights_that_can_t_be_read_are_made_again(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkit.sampling import reading

    expected = pictures(sampler_of(tiny_flux, "int8"))
    real = reading.read_tensors

    def failing(file: Any, device_of: Any) -> Any:
        if any(name.startswith("doubles") for name in file.entries):
            raise OSError("the disk failed")
        return real(file, device_of)

    monkeypatch.setattr(reading, "read_tensors", failing)
    assert pictures(sampler_of(tiny_flux, "int8")) == expected


def test_a_black_picture_is_made_again_in_bfloat16(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkit.sampling.fastflux import FastFlux

    precise = pictures(sampler_of(tiny_flux, None))
    quantized = pictures(sampler_of(tiny_flux, "fp8"))
    real = FastFlux.forward

    def overflowing(self: Any, hidden_states: Any, **given: Any) -> Any:
        (result,) = real(self, hidden_states, **given)
        result[1:] = float("nan")  # the second picture of each batch
        return (result,)

    monkeypatch.setattr(FastFlux, "forward", overflowing)
    notices: list[str] = []
    sampler = sampler_of(tiny_flux, "fp8", on_notice=notices.append)
    made = {job: image.tobytes() for job, image in sampler.images(JOBS, 2) if image is not None}
    assert [made[job] for job in JOBS] == [quantized[0], precise[1], quantized[2], precise[3]]
    assert "2 pictures came out black" in notices[-1]


def test_the_batcher_makes_fp8_pictures_and_says_so(tiny_flux: Path, lokr_file: Path, tmp_path: Path) -> None:
    jobs = plan_jobs({"p": "ohwx"}, seeds=(1,), strengths=(0.5, 1.0), adapters=("final",), **SIZE)
    plan = SamplingPlan(tiny_flux, None, {"final": (AdapterWeight(lokr_file),)}, "fp8", jobs, 4, tmp_path / "out")
    assert not plan.wrapped
    report = sample(plan, on_progress=silent)
    assert (report.made, report.modules) == (2, 30)
    images = json.loads((tmp_path / "out" / "manifest.json").read_text())["images"].values()
    assert {one["quantization"] for one in images} == {"fp8"}
    assert len({sha256_file(tmp_path / "out" / one["file"]) for one in images}) == 2
    assert sample(dataclasses.replace(plan), on_progress=silent).made == 0


def test_an_adapter_that_moves_no_weight_is_refused(tiny_flux: Path, lokr_file: Path) -> None:
    sampler = sampler_of(tiny_flux, "fp8", lokr_file, strength=1e-9)  # lost in bfloat16's rounding
    with pytest.raises(UserError, match="changes nothing"):
        sampler.prove(None, (AdapterWeight(lokr_file),), 1e-9)  # type: ignore[arg-type]
    assert sampler_of(tiny_flux, "fp8", lokr_file).prove(None, (AdapterWeight(lokr_file),), 1.0) > 0.001  # type: ignore


def test_tables_that_are_let_go_come_back(tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxkit.sampling import fast_sampler

    expected = pictures(sampler_of(tiny_flux, "bf16"))
    monkeypatch.setattr(fast_sampler, "_TABLES_KEPT", 1)
    assert pictures(sampler_of(tiny_flux, "bf16")) == expected


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    import os

    import torch

    from fluxkit.sampling.tensor_cache import TensorCache

    cache = TensorCache(tmp_path, 3000)
    for number in range(3):
        assert cache.store({"number": number}, {"x": torch.full((200,), float(number))})
        os.utime(cache._path({"number": number}), (number, number))
    kept = [number for number in range(3) if cache.load({"number": number})]
    assert kept == [0, 1, 2]
    os.utime(cache._path({"number": 1}), (9, 9))
    os.utime(cache._path({"number": 0}), (10, 10))
    os.utime(cache._path({"number": 2}), (5, 5))
    assert cache.store({"number": 3}, {"x": torch.zeros(200)})
    assert [number for number in range(4) if cache.load({"number": number})] == [0, 1, 3]
    assert not cache.store({"number": 4}, {"x": torch.zeros(5000)}), "larger than the whole cache"


@pytest.mark.parametrize(("capability", "shared_kib"), [((8, 0), 163), ((8, 6), 99), ((8, 9), 99), ((9, 0), 227)])
def test_the_int8_products_tile_fits_the_gpus_shared_memory(capability: tuple[int, int], shared_kib: int) -> None:
    from fluxkit.sampling.linears import int8_tile

    rows, columns, depth, _warps, stages = int8_tile(capability)
    assert (rows + columns) * depth * stages < shared_kib * 1024 * 0.9


def test_attention_is_quantized_only_where_that_was_measured_to_be_faster() -> None:
    from fluxkit.sampling.fused_ops import FusedOps, best_ops
    from fluxkit.sampling.ops import PlainOps

    hopper = best_ops("fp8", (9, 0))
    assert isinstance(hopper, FusedOps)
    assert hopper.quantized_attention
    for kind, capability in (("fp8", (8, 9)), ("fp8", (12, 0)), ("int8", (9, 0)), ("bf16", (9, 0))):
        ops = best_ops(kind, capability)  # type: ignore[arg-type]
        assert isinstance(ops, FusedOps)
        assert not ops.quantized_attention
    for old in (None, (7, 5)):
        assert type(best_ops("fp8", old)) is PlainOps
