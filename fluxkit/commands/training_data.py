"""Which pictures a command works on, and what their owner should know about them: shared by several verbs."""

from pathlib import Path

from fluxkit.console import Output
from fluxkit.dataset.preparing.manifest import JOURNAL_FILE, Manifest, digest, load_manifest
from fluxkit.dataset.preparing.stale import changes
from fluxkit.errors import UserError
from fluxkit.project.load import Project


def training_data(project: Project, out: Output) -> Path:
    """The folder to train on, said aloud when it is the prepared copy, with a warning when that is out of date.

    Raises:
        UserError: `prepare` was interrupted, or the copy was made from another folder than the project names now.
    """
    manifest = prepared(project)
    if manifest is None:
        return project.training_dir
    left_out = f", {len(manifest.left_out)} left out" if manifest.left_out else ""
    out.say(f"Using the prepared copy: {len(manifest.photos)} photos{left_out}, in {project.training_dir}")
    changed = changes(manifest, project.dataset_dir)
    if changed:
        out.warn(
            f"The originals in {project.dataset_dir} changed since `fluxkit prepare` ({changed.describe()}): "
            "run it again, or the copy is used as it is."
        )
    return project.training_dir


def prepared(project: Project) -> Manifest | None:
    """The prepared copy's manifest; None where there is no copy.

    Raises:
        UserError: `prepare` was interrupted, or the copy was made from another folder than the project names now.
    """
    fix = "Run `fluxkit prepare`, or delete prepared/ to use the originals."
    if (project.prepared_dir / JOURNAL_FILE).exists():
        raise UserError(f"`fluxkit prepare` was interrupted: {project.prepared_dir} is not complete.", fix=fix)
    manifest = load_manifest(project.prepared_dir)
    if manifest is not None and manifest.source != source_name(project):
        raise UserError(
            f"The prepared copy was made from {manifest.source}, but [dataset] path is {source_name(project)} now.",
            fix=fix,
        )
    return manifest


def training_digest(project: Project) -> str:
    """A hash of the prepared copy's pictures, which the trainer's caches depend on; empty for the originals."""
    manifest = prepared(project)
    return digest(project.prepared_dir, manifest) if manifest else ""


def source_name(project: Project) -> str:
    """How the manifest names the originals' folder: relative inside the project, so that a project may be moved."""
    folder = project.dataset_dir.resolve()
    root = project.root.resolve()
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
