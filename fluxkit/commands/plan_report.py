"""What `train --dry-run` prints: the launch, complete enough to do it by hand."""

from pathlib import Path

from fluxkit.commands.assemble import Assembled
from fluxkit.console import Output
from fluxkit.rendering.render import rendered_texts
from fluxkit.trainer import launch, runs


def print_plan(
    plan: launch.RunPlan, assembled: Assembled, folder: Path, existing: runs.Run | None, out: Output
) -> None:
    """Print all that a launch by hand needs; fluxkit's own adds its webhook to config.json, to watch.

    Args:
        plan: the launch.
        assembled: the project, rendered with paths into `folder`.
        folder: the run's folder, there or not.
        existing: the run that would go on; None for a new one.
        out: where to print: text, or one JSON document.
    """
    config = {str(folder / "config" / name): text for name, text in rendered_texts(assembled.rendered).items()}
    beside = {str(plan.cwd / name): text for name, text in plan.files.items()}
    links = {str(plan.cwd / name): str(target) for name, target in plan.links.items()}
    launched = {"argv": list(plan.argv), "cwd": str(plan.cwd), "env": plan.public_env()}
    out.emit(
        {"run": folder.name, "continues": existing is not None, **launched, "files": config | beside, "links": links}
    )
    out.result(f"run:  {folder.name}{'' if existing else ' (a new one)'}")
    out.result(f"argv: {' '.join(plan.argv)}")
    out.result(f"cwd:  {plan.cwd}")
    out.result("env:")
    for name, value in plan.public_env().items():
        out.result(f"  {name}={value}")
