"""`index.html`: every picture of a folder in one page that needs nothing else, to look at and to pick from."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fluxkit.files import write_text
from fluxkit.resources import resource
from fluxkit.sampling.axes import Entry, adapter_name, label_of, value_of, values
from fluxkit.sampling.ledger import Ledger, read_entries
from fluxkit.sampling.picks import read_picks
from fluxkit.sampling.thumbs import thumbnails

GALLERY = "index.html"
_ORDER = ("prompt", "seed", "checkpoint", "strength", "guidance", "steps")


def write_gallery(ledger: Ledger) -> Path:
    """Write the gallery of a ledger's images.

    Returns:
        The page's path.
    """
    return write_page(ledger.folder, {key: entry for key, entry in ledger.entries.items() if ledger.has(key)})


def refresh_gallery(folder: Path) -> Path:
    """Write the gallery of a folder again, from its ledger; the images are trusted where they are there.

    Raises:
        UserError: the manifest is damaged.
    """
    entries = read_entries(folder)
    return write_page(folder, {key: one for key, one in entries.items() if (folder / str(one["file"])).is_file()})


def write_page(folder: Path, entries: Mapping[str, Entry]) -> Path:
    """Write the page: the same seed across checkpoints side by side, prompts in turn.

    Thumbnails are inside, so that it can be sent alone; the full pictures lie beside it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("templates")), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    script = resource("templates", "gallery.js").read_text(encoding="utf-8")
    ordered = sorted(entries.items(), key=lambda item: tuple(value_of(axis, item[1]) for axis in _ORDER))
    axes = {axis: found for axis in _ORDER if len(found := values(axis, entries.values())) > 1}
    page = environment.get_template("gallery.html.j2").render(
        title=folder.name,
        summary=_summary(ordered),
        filters=[
            {"name": axis, "title": axis, "labels": [_short(axis, value) for value in found]}
            for axis, found in axes.items()
        ],
        grids=sorted(
            {path.name for path in folder.glob("grid-*.png")} - {str(one["file"]) for one in entries.values()}
        ),
        data=_in_script(_data(folder, ordered, axes)),
        script=script,
        script_digest=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )
    path = folder / GALLERY
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path


def _data(folder: Path, ordered: Sequence[tuple[str, Entry]], axes: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What the page's script draws from."""
    prompts: dict[str, int] = {}
    places = {axis: {value: number for number, value in enumerate(found)} for axis, found in axes.items()}
    images = []
    for (key, entry), thumbnail in zip(ordered, thumbnails(folder, [entry for _, entry in ordered]), strict=True):
        images.append(
            {
                "key": key,
                "file": entry["file"],
                "width": entry["width"],
                "height": entry["height"],
                "name": entry["prompt_name"],
                "prompt": prompts.setdefault(entry["prompt"], len(prompts)),
                "seed": entry["seed"],
                "checkpoint": adapter_name(entry) or "base alone",
                "strength": entry["strength"] if adapter_name(entry) else None,
                "steps": entry["num_inference_steps"],
                "guidance": entry["guidance_scale"],
                "cache": entry.get("first_block_cache"),
                "places": {axis: found[value_of(axis, entry)] for axis, found in places.items()},
                "thumbnail": thumbnail,
            }
        )
    identity = hashlib.sha256(str(folder.resolve()).encode("utf-8", "replace")).hexdigest()[:16]
    return {
        "id": identity,
        "axes": list(axes),
        "prompts": list(prompts),
        "images": images,
        "picks": read_picks(folder),
    }


def _summary(ordered: Sequence[tuple[str, Entry]]) -> str:
    prompts = len({entry["prompt"] for _, entry in ordered})
    said = [_count(len(ordered), "image"), _count(prompts, "prompt")]
    steps = {entry["num_inference_steps"] for _, entry in ordered}
    scales = {entry["guidance_scale"] for _, entry in ordered}
    if len(steps) == 1:
        said.append(f"{steps.pop()} steps")
    if len(scales) == 1 and (scale := scales.pop()):
        said.append(f"guidance {scale:g}")
    return " · ".join(said)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _short(axis: str, value: Any) -> str:
    if axis == "prompt":
        return str(value[0])
    return label_of(axis, value)


def _in_script(data: object) -> Markup:
    """JSON that can't end its script element, nor begin a comment in it."""
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Markup(text)  # noqa: S704 - no character of HTML's syntax is left in it
