"""`fluxkit render`: write the JSON that SimpleTuner reads, or show what would change."""

from collections.abc import Sequence
from pathlib import Path

from fluxkit.commands.assemble import assemble, open_project
from fluxkit.commands.training_data import training_data
from fluxkit.console import Output
from fluxkit.rendering.render import diff_rendered, write_rendered


def render(project: Path | None, *, folder: Path | None, diff: bool, option: Sequence[str], out: Output) -> None:
    """Render the project's config.

    Args:
        project: the project's folder.
        folder: where to write; `config/` in the project by default.
        diff: print a unified diff against what is there instead of writing.
        option: `-o` pairs.
        out: where to say things.
    """
    opened = open_project(project)
    training_data(opened, out)
    target = (folder or opened.root / "config").resolve()
    assembled = assemble(
        opened, config_dir=target, output_dir=opened.root / "output", cli_options=option, rehearsal=None
    )
    rendered = assembled.rendered
    if out.as_json:
        out.emit(
            {
                "release": assembled.release.version,
                "folder": str(target),
                "documents": dict(rendered.documents),
                "settings": {k: {"value": s.value, "origin": s.origin} for k, s in rendered.settings.items()},
                "env": dict(rendered.env),
                "notes": list(rendered.notes),
            }
        )
    for note in rendered.notes:
        out.warn(note)
    if diff:
        out.result(diff_rendered(rendered, target).rstrip() or "Nothing would change.")
        return
    write_rendered(rendered, target)
    names = ", ".join(rendered.documents)
    out.say(f"Rendered for SimpleTuner {assembled.release.version}, every option checked: {names}")
    out.result(str(target))
