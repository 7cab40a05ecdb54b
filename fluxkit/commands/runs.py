"""`fluxkit runs`: what was trained in this project and what became of it; `runs show`: one run's curve and images."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from fluxkit.commands.assemble import open_project
from fluxkit.console import Output, printable
from fluxkit.errors import UserError
from fluxkit.trainer import runs as records
from fluxkit.trainer.metrics import Curves, Snapshot, curves, read_status
from fluxkit.trainer.occupancy import Holder, holder_of, status_of
from fluxkit.trainer.watch import SMOOTHING, Smooth

FORMAT = 1  # of the JSON documents; docs/watching.md describes them
_IMAGE = re.compile(r"step_(\d+)_(.*)\.png")
_COLOURS = {"finished": "green", "running": "cyan", "failed": "red", "died": "red", "interrupted": "yellow"}
PLOT_WIDTH, PLOT_HEIGHT = 60, 12
MOST_POINTS = 2000  # of the curve in a JSON document; more are thinned out evenly


def list_all(project: Path | None, *, out: Output) -> list[dict[str, Any]]:
    """Print every run, oldest first.

    Args:
        project: the project's folder.
        out: where to say things.

    Returns:
        The runs, as in the JSON document.
    """
    opened = open_project(project)
    holder = holder_of(opened.root)
    found = [_facts(run, holder) for run in records.list_runs(opened.runs_dir)]
    out.emit({"format": FORMAT, "runs": found})
    if not found:
        out.result("No runs yet: `fluxkit train` makes the first.")
    elif not out.as_json:
        _print_table(found, out)
    return found


def show(project: Path | None, *, run_id: str | None, out: Output) -> dict[str, Any]:
    """Print one run: what it is, its loss curve, checkpoints, validation images, and why it failed.

    Args:
        project: the project's folder.
        run_id: the run; the newest by default.
        out: where to say things.

    Returns:
        The JSON document.

    Raises:
        UserError: there is no such run.
    """
    opened = open_project(project)
    run = newest_or(opened.runs_dir, run_id)
    known = curves(run)
    document = {
        "format": FORMAT,
        **_facts(run, holder_of(opened.root)),
        "losses": _points(known.loss),
        "learning_rates": _points(known.learning_rate),
        "gradient_norms": _points(known.gradient_norm),
        "checkpoints": {str(step): str(path.parent) for step, path in run.checkpoints().items()},
        "validation_images": {str(step): [str(path) for path in paths] for step, paths in _images(run).items()},
        "log": str(run.log_file),
    }
    out.emit(document)
    if not out.as_json:
        _print_run(run, document, known, out)
    return document


def newest_or(runs_dir: Path, run_id: str | None) -> records.Run:
    """The run of that id; without one, the newest.

    Raises:
        UserError: there is none.
    """
    if run_id:
        return records.find_run(runs_dir, run_id)
    found = records.list_runs(runs_dir)
    if not found:
        raise UserError("There are no runs yet.", fix="`fluxkit train` makes the first.")
    return found[-1]


def _facts(run: records.Run, holder: Holder | None) -> dict[str, Any]:
    record = run.record
    snapshot = read_status(run) or Snapshot(step=max(run.checkpoints(), default=0))
    status = status_of(run, holder)
    running = status == "running"
    return {
        "id": record.id,
        "status": status,
        "rehearsal": record.rehearsal,
        "step": record.steps if status == "finished" else snapshot.step,
        "steps": record.steps,
        "loss": snapshot.smoothed,
        "seconds_per_step": (snapshot.seconds_per_step if running else None) or record.seconds_per_step,
        "seconds_left": snapshot.seconds_left if running else None,
        "stage": snapshot.stage if running else None,
        "started": record.created,
        "profile": record.profile,
        "release": record.release,
        "message": record.message,
        "folder": str(run.folder),
        "adapter": str(run.final_weights) if run.final_weights.is_file() else None,
    }


def _print_table(found: list[dict[str, Any]], out: Output) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "status", "steps", "loss", "s/step", "started (UTC)", "profile", "SimpleTuner"):
        table.add_column(name, justify="right" if name in ("steps", "loss", "s/step") else "left", no_wrap=True)
    for run in found:
        table.add_row(
            run["id"],
            Text(run["status"] + (" (rehearsal)" if run["rehearsal"] else ""), style=_COLOURS.get(run["status"], "")),
            f"{run['step']:,}/{run['steps']:,}",
            _number(run["loss"], 4),
            _number(run["seconds_per_step"], 2),
            run["started"][:16].replace("T", " "),
            Text(run["profile"]),
            Text(run["release"]),
        )
    out.table(table)


def _print_run(run: records.Run, document: Mapping[str, Any], known: Curves, out: Output) -> None:
    kind = "rehearsal, " if document["rehearsal"] else ""
    out.result(f"Run {document['id']}: {document['status']} ({kind}SimpleTuner {document['release']})")
    if document["status"] == "died":
        out.result("  It says that it runs, but the fluxkit that ran it is gone (killed, or the machine went down).")
    if document["message"]:
        out.result(f"  {document['message']}")
    snapshot = replace(read_status(run) or Snapshot(), step=document["step"], steps=document["steps"])
    if document["status"] != "running":
        snapshot = replace(snapshot, seconds_left=None, gpu_bytes=())
    out.result(f"  {snapshot.describe()}")
    plot = plot_losses(known.loss)
    if plot:
        out.result(f"\n{plot}\n")
    norms = {step: norm for step, norm in known.gradient_norm.items() if math.isfinite(norm)}
    if norms:
        highest = max(norms, key=norms.__getitem__)
        middle = median(norms.values())
        out.result(f"Gradient norm: median {middle:.3g}, highest {norms[highest]:.3g} (step {highest:,})")
    if document["checkpoints"]:
        out.result(f"Checkpoints: {', '.join(f'{int(step):,}' for step in document['checkpoints'])}")
    images = _images(run)
    if images:
        out.result(f"Validation images, in {run.output_dir / 'validation_images'}:")
        for step, paths in images.items():
            out.result(f"  step {step:,}: {', '.join(printable(path.name) for path in paths)}")
    if document["adapter"]:
        out.result(f"Adapter: {document['adapter']}")
    out.result(f"Log: {run.log_file}")


def plot_losses(curve: Mapping[int, float]) -> str:
    """The smoothed loss by step, drawn with letters; empty where there is nothing to draw."""
    smooth = Smooth(SMOOTHING if len(curve) > 100 else 0.8)
    points = [(step, smooth.add(loss)) for step, loss in curve.items()]
    drawn = [(step, mean) for step, mean in points if mean is not None]
    if len(drawn) < 2:
        return ""
    from uniplot import plot_to_string

    means = [mean for _, mean in drawn]
    low, high = min(means), max(means)
    plot = plot_to_string(
        xs=[step for step, _ in drawn],
        ys=means,
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        lines=True,
        title="loss by step, smoothed",
        x_min=drawn[0][0],
        x_max=drawn[-1][0],
        y_min=low if low < high else low - 1,
        y_max=high,
        y_gridlines=[],
        y_labels=False,  # uniplot (0.23) rounds those of a range below 1 to whole numbers
    )
    lines = plot.rstrip("\n").split("\n")
    rows = [number for number, line in enumerate(lines) if line.startswith("│")]
    lines[rows[0]] += f" {high:.4f}"
    if low < high:
        lines[rows[-1]] += f" {low:.4f}"
    return "\n".join(lines)


def _points(curve: Mapping[int, float]) -> list[tuple[int, float | None]]:
    every = max(1, math.ceil(len(curve) / MOST_POINTS))
    points = list(curve.items())
    chosen = points[::every] + (points[-1:] if points and (len(points) - 1) % every else [])
    return [(step, loss if math.isfinite(loss) else None) for step, loss in chosen]


def _images(run: records.Run) -> dict[int, list[Path]]:
    found: dict[int, list[Path]] = {}
    for path in sorted((run.output_dir / "validation_images").glob("step_*.png")):
        match = _IMAGE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), []).append(path)
    return dict(sorted(found.items()))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
