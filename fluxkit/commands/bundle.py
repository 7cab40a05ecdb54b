"""`fluxkit doctor --bundle`: a report to send, and the list of what is in it."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fluxkit.console import Output
from fluxkit.doctor.bundle import entries, write_bundle
from fluxkit.errors import UserError
from fluxkit.project.load import Project
from fluxkit.trainer.runs import Run, list_runs


def bundle(
    path: Path, root: Path | None, project: Project | None, doctor: Mapping[str, Any], out: Output
) -> dict[str, Any]:
    """Write the archive and say what is in it.

    Args:
        path: the archive, or a folder to put it into.
        root: the project's folder; None outside of one.
        project: the project; None where its settings can't be understood.
        doctor: the doctor's report.
        out: where to say things.

    Returns:
        What `--json` says of it.
    """
    if path.is_dir():
        path = path / f"fluxkit-report-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.zip"
    found = entries(root, project, doctor, _newest(root))
    write_bundle(path, found)
    out.say("In the report, with names, paths, captions, prompts and tokens taken out; no photo is in it:")
    for entry in found:
        out.say(f"  {entry.name}: {entry.what} ({len(entry.text.encode()):,} bytes)")
    out.say("Look through it before you send it.")
    out.result(str(path))
    return {"file": str(path), "entries": [{"name": entry.name, "what": entry.what} for entry in found]}


def _newest(root: Path | None) -> Run | None:
    try:
        runs = list_runs(root / "runs") if root else []
    except UserError:  # a record that can't be read: the report goes without
        return None
    return runs[-1] if runs else None
