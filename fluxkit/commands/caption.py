"""`fluxkit caption`: a description for each picture that has none, then a look over them."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fluxkit.captioning.models import DEFAULT_MODEL, ModelSpec, find_model
from fluxkit.captioning.review import Reviewed, review
from fluxkit.captioning.run import Captioned, Captioner, caption_pictures
from fluxkit.captioning.store import CaptionStore, caption_path, check_writable
from fluxkit.commands.assemble import open_project
from fluxkit.commands.caption_report import as_json, say_end, say_plan, say_result, say_traits
from fluxkit.commands.training_data import training_data
from fluxkit.console import Output, printable
from fluxkit.dataset.preparing.pixels import decode, quiet_pillow, read_picture, to_srgb, turned
from fluxkit.dataset.scan import scan
from fluxkit.errors import InterruptedByUser, UserError
from fluxkit.extras import require
from fluxkit.hardware import gpus
from fluxkit.project.load import Project
from fluxkit.resources import resource

if TYPE_CHECKING:
    from PIL.Image import Image

# Pictures at once where nobody said how many; memory that runs out halves it.
_BATCH_ON_GPU, _BATCH_ON_CPU = 8, 1


def caption(
    project: Path | None,
    *,
    model: str | None,
    overwrite: bool,
    review_all: bool,
    batch_size: int | None,
    out: Output,
) -> list[Captioned]:
    """Caption the pictures that have no caption yet.

    Args:
        project: the project's folder.
        model: a Hub id or a local folder; None takes Florence-2.
        overwrite: caption all pictures; older captions are kept as `.txt.bak`.
        review_all: open every caption in an editor afterwards.
        batch_size: pictures at once.
        out: where to say things.

    Raises:
        UserError: nothing can be captioned, or some pictures could not; the captions that were made are kept.
        GpuMemoryError: not even one picture fits.
        InterruptedByUser: Ctrl-C; the captions that were made are kept.
    """
    opened = open_project(project)
    if opened.config.dataset.captions == "trigger":
        raise UserError(
            'This project trains without captions: [dataset] captions = "trigger" uses the trigger alone.',
            fix='Set captions = "textfile" under [dataset] in fluxkit.toml, then run `fluxkit caption` again.',
        )
    folder = training_data(opened, out)
    pictures = _pictures(folder)
    if review_all:
        _check_editor(out)
    store = CaptionStore.open(opened.root, opened.cache_dir / "captions.json")
    results: list[Captioned] = []
    key = _model_key(opened, model or DEFAULT_MODEL)
    todo = [picture for picture in pictures if _wanted(store, picture, overwrite, key)]
    say_plan(folder, len(pictures), len(todo), overwrite, out)
    reviewed: list[Reviewed] = []
    try:
        if todo:
            check_writable(todo)
            for result in _captioned(opened, todo, store, model or DEFAULT_MODEL, key, batch_size, out):
                results.append(result)
                say_result(result, folder, len(results), len(todo), out)
        if review_all:
            reviewed = list(_reviewed(pictures, store, opened.config.project.trigger, out))
    except (KeyboardInterrupt, click.Abort) as stop:
        made = sum(result.status == "made" for result in results)
        kept = f"{made} of {len(todo)} captions were made and are kept" if todo else "what you saved is kept"
        raise InterruptedByUser(f"Stopped; {kept}.", fix="The same command goes on there.") from stop
    named = say_traits(opened.config.project.subject, pictures, folder, out)
    out.emit(as_json(folder, pictures, results, reviewed, named))
    say_end(results, folder, out)
    return results


def _pictures(folder: Path) -> list[Path]:
    scanned = scan(folder)
    # Two pictures of one stem share a caption; `validate` says so.
    pictures = list({caption_path(picture): picture for picture in reversed(scanned.images)}.values())
    if not pictures:
        found = next((finding for finding in scanned.findings if finding.severity == "error"), None)
        raise UserError(
            found.message if found else f"There are no pictures in {folder}.",
            fix=found.fix if found else "Put photos there.",
        )
    return sorted(pictures)


def _wanted(store: CaptionStore, picture: Path, overwrite: bool, key: str) -> bool:
    # What this very model made of this very picture need not be made again: an interrupted --overwrite goes on.
    return store.is_missing(picture) or (overwrite and not store.is_from(picture, key))


def _model_key(project: Project, model: str) -> str:
    """Names everything that a caption depends on beside the picture."""
    import hashlib

    parts = f"{_instruction(project)}\n{project.config.project.trigger}"
    return f"{model} {hashlib.sha256(parts.encode()).hexdigest()[:8]}"


def _instruction(project: Project) -> str:
    text = resource("templates", "captioning", "instruction.txt").read_text(encoding="utf-8")
    return " ".join(text.replace("{subject}", project.config.project.subject).split())


def _captioned(
    project: Project,
    todo: Sequence[Path],
    store: CaptionStore,
    model: str,
    key: str,
    batch_size: int | None,
    out: Output,
) -> Iterator[Captioned]:
    require("caption", "Captioning")
    spec = find_model(model)
    out.say(f"Loading {model}" + ("" if spec.local else " (the first time it is downloaded)"))
    captioner = loaded(spec, _instruction(project))
    with quiet_pillow():
        yield from caption_pictures(
            todo,
            captioner,
            store,
            load=_load,
            trigger=project.config.project.trigger,
            model_key=key,
            batch_size=batch_size or (_BATCH_ON_GPU if gpus() else _BATCH_ON_CPU),
        )


def loaded(spec: ModelSpec, instruction: str) -> Captioner:
    """The model; torch and transformers are imported here at the earliest."""
    from fluxkit.captioning.captioner import load_captioner

    return load_captioner(spec, instruction)


def _load(picture: Path) -> "Image":
    return to_srgb(turned(decode(read_picture(picture))))[0]


def _check_editor(out: Output) -> None:
    if not sys.stdin.isatty() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        raise UserError(
            "--review opens an editor, and there is no terminal here.",
            fix="Run it in a terminal, or name an editor with a window of its own: EDITOR='gedit --wait'.",
        )
    if out.as_json:
        raise UserError("--review and --json don't go together: the editor needs the terminal.", fix="Use one of them.")


def _reviewed(pictures: Sequence[Path], store: CaptionStore, trigger: str, out: Output) -> Iterator[Reviewed]:
    """Those not looked over yet; when all are, all again."""
    have = [picture for picture in pictures if caption_path(picture).is_file()]
    waiting = [picture for picture in have if store.needs_review(picture)] or have
    if len(waiting) < len(have):
        out.say(f"{len(have) - len(waiting)} captions were looked over before and did not change since")
    for seen in review(waiting, store, trigger, _edit):
        note = " (it was empty: the old text is kept)" if seen.outcome == "emptied" else ""
        out.say(f"  {printable(seen.picture.name)}: {seen.outcome.replace('emptied', 'unchanged')}{note}")
        yield seen


def _edit(text: str) -> str | None:
    try:
        edited = click.edit(text, extension=".txt")
    except click.ClickException as error:
        raise UserError(
            f"The editor could not be used: {error.message}",
            fix="Name one that is installed: EDITOR=nano fluxkit caption --review",
        ) from error
    return None if edited is None else str(edited)
