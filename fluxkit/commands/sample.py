"""`fluxkit sample`: which adapters, which prompts, which seeds; then the batcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit.commands.assemble import open_project
from fluxkit.commands.chosen import choose
from fluxkit.commands.sample_options import (
    chosen_prompts,
    chosen_seeds,
    floats,
    image_size,
    images_at_once,
    whole_numbers,
)
from fluxkit.console import Output
from fluxkit.extras import require
from fluxkit.hub import check_base, downloaded
from fluxkit.project.config import SampleSection
from fluxkit.sampling.bases import DEV, BaseModel, base_model
from fluxkit.sampling.gallery import refresh_gallery
from fluxkit.sampling.grids import parse_axes, write_grids

if TYPE_CHECKING:
    from fluxkit.sampling.plan import Job, Quantization


def sample(
    project: Path | None,
    *,
    run_id: str | None = None,
    checkpoint: str | None = None,
    adapter: Sequence[str] = (),
    base: str | None = None,
    prompt: Sequence[str] = (),
    prompts: Path | None = None,
    seeds: str | None = None,
    strength: str | None = None,
    size: str | None = None,
    num_inference_steps: str | None = None,
    guidance_scale: str | None = None,
    quantize: str | None = None,
    batch_size: str | None = None,
    first_block_cache: float | None = None,
    folder: Path | None = None,
    grid: str | None = None,
    image_format: str = "png",
    metadata: bool = True,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    image_timeout: float | None = None,
    verify: bool = False,
    out: Output,
) -> list[Path]:
    """Make the images that are still missing.

    Returns:
        The gallery.

    Raises:
        UserError: nothing was trained yet, an option makes no sense, or some images could not be made.
        GpuMemoryError: one image at a time does not fit.
    """
    opened = open_project(project)
    require("sample", "Making images")
    axes = parse_axes(grid) if grid else None
    settings = opened.config.sample
    chosen = choose(opened, run_id=run_id, checkpoint=checkpoint, adapters=adapter or (), base=base, out=out)
    width, height = image_size(size) if size else (settings.width, settings.height)
    chosen_batch = images_at_once(batch_size) if batch_size else settings.batch_size
    if downloaded(chosen.base, chosen.revision) is None:
        check_base(chosen.base, chosen.revision)
    steps, guidance = _steps_and_guidance(
        base_model(chosen.base, chosen.revision), settings, num_inference_steps, guidance_scale, out
    )
    from fluxkit.sampling.batcher import sample as make_images
    from fluxkit.sampling.engines import check_failed, choose_engine
    from fluxkit.sampling.plan import SamplingPlan, plan_jobs

    target = folder or opened.samples_dir / chosen.folder
    numbers = chosen_seeds(seeds, settings.base_seed, settings.seeds_per_prompt)
    if seeds and seeds.startswith("random"):
        out.say(f"Seeds drawn; to make the same images again: --seeds {','.join(map(str, numbers))},")
    jobs = plan_jobs(
        chosen_prompts(opened, prompt or (), prompts),
        seeds=numbers,
        strengths=floats(strength, "--strength") if strength else (settings.strength,),
        adapters=chosen.names,
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    plan = SamplingPlan(
        base=chosen.base,
        revision=chosen.revision,
        adapters=chosen.adapters,
        quantize=_quantization(quantize or settings.quantize, jobs, cached=first_block_cache is not None),
        jobs=jobs,
        batch_size=chosen_batch,
        out=target,
        image_format=image_format,  # type: ignore[arg-type]
        metadata=metadata,
        first_block_cache=first_block_cache,
    )
    if (quantize or settings.quantize) == "auto":
        out.say(f"The base model's weights: {plan.quantize}, which `auto` means here")
    source = f"run {chosen.run}, " if chosen.run else ""
    out.say(
        f"{len(jobs)} images from {source}{', '.join(name or 'the base alone' for name in chosen.names)} in {target}"
    )
    with out.bar() as bar:
        report = make_images(
            plan,
            on_progress=lambda done, total: bar.update(f"{done}/{total} images", done, total),
            engine=choose_engine(engine, workers=workers, address=ray_address, image_timeout=image_timeout),
            verify=verify,
        )
    out.say(f"{report.made} made, {report.skipped} were there already; {report.modules} modules adapted")
    for name, effect in report.effects.items():
        out.say(f"  {name} moves a prediction of the model by {effect:.1%}")
    grids = write_grids(target, *axes) if axes else []
    if grids:
        refresh_gallery(target)  # it links them
    out.emit(
        {
            "run": chosen.run or None,
            "galleries": [str(report.gallery)],
            "grids": [str(path) for path in grids],
            "made": report.made,
            "skipped": report.skipped,
            "failed": [one.reason for one in report.failed],
            "effects": dict(report.effects),
            "seeds": list(numbers),
        }
    )
    for path in (*grids, report.gallery):
        out.result(str(path))
    check_failed(report.failed)
    return [report.gallery]


def _quantization(name: str, jobs: "Sequence[Job]", *, cached: bool) -> "Quantization":
    from fluxkit.sampling.plan import compares
    from fluxkit.sampling.quantizers import fastest

    return fastest(compared=compares(jobs), cached=cached) if name == "auto" else name  # type: ignore[return-value]


def _steps_and_guidance(
    model: BaseModel, settings: SampleSection, steps: str | None, guidance: str | None, out: Output
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The command line's, else the project's where they are not fluxkit's own for [dev], else the base model's."""
    own: Any = settings.num_inference_steps
    if own == DEV.num_inference_steps:
        own = model.num_inference_steps
    chosen_steps = whole_numbers(steps, "--num-inference-steps") if steps else (own,)
    if not model.guided:
        if guidance:
            out.warn(f"{model.name} takes no guidance: --guidance-scale changes nothing.")
        return chosen_steps, (0.0,)
    own = settings.guidance_scale
    if own == DEV.guidance_scale:
        own = model.guidance_scale
    return chosen_steps, floats(guidance, "--guidance-scale") if guidance else (own,)
