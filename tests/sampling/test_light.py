"""What stands in for diffusers' pipeline gives what it gives, to the bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxkit.errors import UserError
from fluxkit.sampling.decoding import picture
from fluxkit.sampling.schedule import sigmas

DEV = {"_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 256, "base_shift": 0.5,
       "max_image_seq_len": 4096, "max_shift": 1.15, "num_train_timesteps": 1000, "shift": 3.0,
       "use_dynamic_shifting": True}  # fmt: skip
SCHNELL = {**DEV, "shift": 1.0, "use_dynamic_shifting": False}


@pytest.mark.parametrize(
    "config", [DEV, SCHNELL, {**DEV, "use_karras_sigmas": True}, {**DEV, "time_shift_type": "linear"}]
)
@pytest.mark.parametrize(("width", "height", "steps"), [(1024, 1024, 20), (64, 48, 1), (768, 1344, 28)])
def test_the_steps_are_those_of_diffusers(config: dict[str, Any], width: int, height: int, steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(config)
    shift = calculate_shift((height // 16) * (width // 16), 256, 4096, 0.5, 1.15)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=shift)
    found = sigmas(config, width, height, steps)
    assert found.dtype == np.float32
    assert found.tolist() == scheduler.sigmas.tolist()
    assert (found[:-1] * np.float32(1000)).tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize(
    "change", [{"_class_name": "EulerDiscreteScheduler"}, {"stochastic_sampling": True}, {"num_train_timesteps": 500}]
)
def test_a_scheduler_that_is_not_fluxs_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="scheduler"):
        sigmas({**DEV, **change}, 64, 64, 4)


@pytest.mark.parametrize("guided", [True, False])
def test_the_embedders_are_diffusers_own(guided: bool) -> None:
    import torch
    from diffusers import FluxTransformer2DModel

    from fluxkit.sampling.frame import FluxConfig, frame_parts, rotary_angles

    sizes: Any = {"num_layers": 0, "num_single_layers": 0, "attention_head_dim": 16, "num_attention_heads": 2,
                  "joint_attention_dim": 24, "pooled_projection_dim": 8, "guidance_embeds": guided,
                  "axes_dims_rope": (4, 6, 6)}  # fmt: skip
    torch.manual_seed(0)
    theirs: Any = FluxTransformer2DModel(**sizes).to(torch.bfloat16)
    parts = frame_parts(FluxConfig(sizes))
    for name, part in parts.items():
        part.load_state_dict(getattr(theirs, name).state_dict(), assign=True)  # strict: the names are the same
    time, scale, pooled = torch.tensor([875.0, 3.0]), torch.tensor([3000.0, 0.0]), torch.randn(2, 8).to(torch.bfloat16)
    given = (time, scale, pooled) if guided else (time, pooled)
    assert parts["time_text_embed"](*given).equal(theirs.time_text_embed(*given))
    ids = torch.randint(0, 64, (10, 3)).to(torch.bfloat16)
    for mine, other in zip(rotary_angles(ids, (4, 6, 6)), theirs.pos_embed(ids), strict=True):
        assert mine.equal(other)


def test_the_files_of_the_first_releases_lack_settings() -> None:
    from fluxkit.sampling.frame import FluxConfig

    config = FluxConfig({"guidance_embeds": True})
    assert (config.width, config.axes_dims_rope, config.out_channels) == (3072, (16, 56, 56), None)
    with pytest.raises(AttributeError):
        _ = config.nothing


def test_the_empty_model_has_the_shapes_of_the_real_one(tiny_flux: Path) -> None:
    from diffusers import FluxTransformer2DModel

    from fluxkit.sampling.frame import FluxConfig, empty_source

    config = json.loads((tiny_flux / "transformer/config.json").read_text())
    real = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer").state_dict()
    source = empty_source(FluxConfig(config))
    wanted = {name: tensor for name, tensor in real.items() if ".linear." not in name or "blocks" not in name}
    wanted = {name: tensor for name, tensor in wanted.items() if not name.startswith("norm_out")}
    assert {name: source(name).shape for name in wanted} == {name: tensor.shape for name, tensor in wanted.items()}


def test_the_decoder_is_that_of_diffusers_vae(tiny_flux: Path) -> None:
    import torch
    from diffusers import AutoencoderKL
    from diffusers.image_processor import VaeImageProcessor

    from fluxkit.sampling.vae import Decoder, load_vae

    mine = load_vae(tiny_flux / "vae")
    theirs: Any = AutoencoderKL.from_pretrained(tiny_flux, subfolder="vae", dtype=torch.bfloat16)
    assert isinstance(mine, Decoder)
    latents = torch.randn(1, 16, 6, 8, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16) * 3
    with torch.no_grad():
        pixels = mine.decode(latents)[0]
        assert pixels.equal(theirs.decode(latents, return_dict=False)[0])
    expected = VaeImageProcessor().postprocess(pixels, output_type="pil")[0]
    made = picture(pixels)
    assert made is not None
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("device", "capability", "quick"), [
    ("cuda", (9, 0), True), ("cuda", (7, 5), False), ("cpu", (0, 0), False),
])  # fmt: skip
def test_the_decoder_is_quick_where_the_gpu_has_the_kernels(
    tiny_flux: Path, monkeypatch: pytest.MonkeyPatch, device: str, capability: tuple[int, int], quick: bool
) -> None:
    import torch

    from fluxkit.sampling.fast_vae import NormSilu, place_vae
    from fluxkit.sampling.vae import load_vae

    vae = load_vae(tiny_flux / "vae")
    moved: list[dict[str, Any]] = []
    monkeypatch.setattr(vae, "to", lambda *_, **given: moved.append(given))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    place_vae(vae, torch.device(device))
    assert ({"memory_format": torch.channels_last} in moved) is quick
    assert {one.fused for one in vae.modules() if isinstance(one, NormSilu)} == {quick}


def test_channels_last_change_the_last_bits_only(tiny_flux: Path) -> None:
    import torch

    from fluxkit.sampling.fast_vae import quicken
    from fluxkit.sampling.vae import load_vae

    vae = load_vae(tiny_flux / "vae").float()
    latents = torch.randn(1, 16, 6, 8)
    with torch.no_grad():
        plain = vae.decode(latents)[0]
        quicken(vae, fused=False)
        torch.testing.assert_close(vae.decode(latents)[0], plain, rtol=1e-4, atol=1e-5)


def test_a_vae_of_another_make_is_diffusers_business(tiny_flux: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import AutoencoderKL

    from fluxkit.sampling.vae import load_vae

    theirs: Any = AutoencoderKL.from_pretrained(tiny_flux, subfolder="vae")
    other = AutoencoderKL.from_config({**theirs.config, "use_post_quant_conv": True})
    other.save_pretrained(tmp_path)
    found = load_vae(tmp_path)
    assert isinstance(found, AutoencoderKL)
    assert found.dtype == torch.bfloat16


def test_the_loop_is_that_of_diffusers_pipeline(tiny_flux: Path) -> None:
    import torch
    from diffusers import FluxPipeline

    from fluxkit.sampling.light import LightPipeline

    theirs: Any = FluxPipeline.from_pretrained(tiny_flux, dtype=torch.bfloat16)
    theirs.set_progress_bar_config(disable=True)
    random = torch.Generator().manual_seed(5)
    prompt = torch.randn(2, 6, theirs.transformer.config.joint_attention_dim, generator=random).to(torch.bfloat16)
    pooled = torch.randn(2, theirs.transformer.config.pooled_projection_dim, generator=random).to(torch.bfloat16)
    mine = LightPipeline(str(tiny_flux), None)

    class Stub:
        """A transformer that answers from what the loop gives it; it has no time of its own."""

        config = theirs.transformer.config

        def __call__(
            self, *, hidden_states: Any, encoder_hidden_states: Any, txt_ids: Any, img_ids: Any, **_times: Any
        ) -> tuple[Any]:
            assert txt_ids.equal(torch.zeros(6, 3))
            places = img_ids.sum(-1)[None, :, None] / 10
            return (torch.sin(hidden_states * 3) + places + encoder_hidden_states.mean(),)

    class Theirs(torch.nn.Module):
        config = theirs.transformer.config
        dtype, device = torch.bfloat16, torch.device("cpu")
        cache_context = theirs.transformer.cache_context

        def forward(self, **given: Any) -> tuple[Any]:
            return Stub()(**given)

    mine.transformer, theirs.transformer = Stub(), Theirs()
    given: dict[str, Any] = {"prompt_embeds": prompt, "pooled_prompt_embeds": pooled, "width": 96, "height": 64,
                             "num_inference_steps": 5, "guidance_scale": 3.0}  # fmt: skip
    one, two = (
        pipe(**given, generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)], output_type="latent").images
        for pipe in (mine, theirs)
    )
    assert one.equal(two)


def test_a_base_without_a_scheduler_is_refused_in_words(tmp_path: Path) -> None:
    from fluxkit.sampling.pipeline import FluxSampler
    from fluxkit.sampling.quantizers import RowQuantizer

    with pytest.raises(UserError, match=r"scheduler_config\.json"):
        FluxSampler(tmp_path, None, RowQuantizer("fp8"))
