"""`fluxkit sample`: which adapter, which prompts, which seeds; then the batcher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxkit.commands.assemble import open_project
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.extras import require
from fluxkit.hub import check_base
from fluxkit.project.load import Project
from fluxkit.project.prompts import with_trigger
from fluxkit.trainer.runs import Run, find_run, list_runs


def sample(
    project: Path | None,
    *,
    run_id: str | None,
    checkpoint: str,
    prompt: Sequence[str],
    seeds: str | None,
    strength: str | None,
    size: str | None,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    quantize: str | None,
    batch_size: str | None,
    folder: Path | None,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    verify: bool = False,
    out: Output,
) -> list[Path]:
    """Make the images that are still missing.

    Returns:
        The gallery of each checkpoint.

    Raises:
        UserError: nothing was trained yet, an option makes no sense, or some images could not be made.
        GpuMemoryError: one image at a time does not fit.
    """
    opened = open_project(project)
    require("sample", "Making images")
    settings = opened.config.sample
    run = find_run(opened.runs_dir, run_id) if run_id else _newest(opened)
    width, height = _size(size) if size else (settings.width, settings.height)
    chosen_batch = _batch_size(batch_size) if batch_size else settings.batch_size
    check_base(run.record.base, run.record.revision)
    from fluxkit.sampling.batcher import sample as make_images
    from fluxkit.sampling.engines import check_failed, choose_engine
    from fluxkit.sampling.plan import AdapterWeight, SamplingPlan, plan_jobs

    galleries: list[Path] = []
    failed: list[Any] = []
    for name, adapter in _adapters(run, checkpoint):
        target = folder or opened.samples_dir / f"{run.record.id}-{name}"
        jobs = plan_jobs(
            _prompts(opened, prompt),
            seeds=_seeds(seeds, settings.base_seed, settings.seeds_per_prompt),
            strengths=_floats(strength, "--strength") if strength else (settings.strength,),
            adapters=(name,),
            width=width,
            height=height,
            num_inference_steps=num_inference_steps or settings.num_inference_steps,
            guidance_scale=settings.guidance_scale if guidance_scale is None else guidance_scale,
        )
        plan = SamplingPlan(
            base=run.record.base,
            revision=run.record.revision,
            adapters={name: (AdapterWeight(adapter),)},
            quantize=quantize or settings.quantize,  # type: ignore[arg-type]
            jobs=jobs,
            batch_size=chosen_batch,
            out=target,
        )
        out.say(f"{len(jobs)} images from run {run.record.id}, {name}, into {target}")
        report = make_images(
            plan,
            on_progress=lambda done, total: out.say(f"  {done}/{total}"),
            engine=choose_engine(engine, workers=workers, address=ray_address),
            verify=verify,
        )
        out.say(f"{report.made} made, {report.skipped} were there already; {report.modules} modules merged")
        galleries.append(report.gallery)
        failed += report.failed
    out.emit({"run": run.record.id, "galleries": [str(path) for path in galleries]})
    for gallery in galleries:
        out.result(str(gallery))
    check_failed(failed)
    return galleries


def _newest(project: Project) -> Run:
    """The newest run with weights that is not a rehearsal: a rehearsal's adapter fits the tiny model alone."""
    real = [run for run in list_runs(project.runs_dir) if not run.record.rehearsal]
    for run in reversed(real):
        if run.final_weights.is_file() or run.checkpoints():
            return run
    if real:
        raise UserError("No run has saved an adapter yet.", fix="Run `fluxkit train` to continue.")
    raise UserError("Nothing was trained yet.", fix="Run `fluxkit train`; or name a rehearsal with --run.")


def _adapters(run: Run, checkpoint: str) -> list[tuple[str, Path]]:
    found = run.checkpoints()
    named = [(f"checkpoint-{step}", path) for step, path in found.items()]
    final = [("final", run.final_weights)] if run.final_weights.is_file() else []
    if checkpoint == "latest":
        chosen = (named + final)[-1:]
    elif checkpoint == "all":
        chosen = named + final
    elif checkpoint.isdigit() and int(checkpoint) in found:
        chosen = [(f"checkpoint-{checkpoint}", found[int(checkpoint)])]
    else:
        known = ", ".join(str(step) for step in found) or "none"
        raise UserError(
            f"Run {run.record.id} has no checkpoint {checkpoint}.", fix=f"It has: {known}; or: latest, all."
        )
    if not chosen:
        raise UserError(f"Run {run.record.id} has saved no adapter yet.", fix="Run `fluxkit train` to continue it.")
    return chosen


def _prompts(project: Project, texts: Sequence[str]) -> dict[str, str]:
    if texts:
        trigger = project.config.project.trigger
        return {f"prompt-{i}": with_trigger(text, trigger) for i, text in enumerate(texts, start=1)}
    if not project.prompts:
        raise UserError("There are no prompts.", fix="Write some into prompts.toml, or give one with --prompt.")
    return dict(project.prompts)


def _seeds(text: str | None, base_seed: int, count: int) -> tuple[int, ...]:
    """`N` is how many from the base seed on, `a,b,c` is which (`a,` for one)."""
    if text is None:
        return tuple(base_seed + i for i in range(count))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise UserError(
            f"--seeds {text!r} is neither a number nor a list.", fix="For example: --seeds 4 or --seeds 7,11"
        )
    if "," in text:
        return tuple(dict.fromkeys(int(part) for part in parts))
    return tuple(base_seed + i for i in range(int(parts[0])))


def _floats(text: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise UserError(f"{name} {text!r} is no list of numbers.", fix=f"For example: {name} 0.8,1.0") from error


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"--size {text!r} is not WIDTHxHEIGHT.", fix="For example: --size 832x1216")
    return int(parts[0]), int(parts[1])


def _batch_size(text: str) -> Any:
    if text == "auto":
        return "auto"
    if not text.isdigit() or int(text) < 1:
        raise UserError(f"--batch-size {text!r} is neither auto nor a number.", fix="For example: --batch-size 2")
    return int(text)
