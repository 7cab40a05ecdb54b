"""`index.html`: every picture of a folder in one page that needs nothing else."""

import base64
import io
from pathlib import Path
from typing import Any

from fluxkit.files import write_text
from fluxkit.resources import resource
from fluxkit.sampling.ledger import Ledger

GALLERY = "index.html"
_THUMBNAIL = 512


def write_gallery(ledger: Ledger) -> Path:
    """Write the gallery of a ledger's images, grouped by prompt, ordered by strength and seed.

    Thumbnails are inside the page, so that it can be sent alone; a click opens the full picture beside it.

    Returns:
        The page's path.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(resource("templates")), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    groups = _groups(ledger)
    page = environment.get_template("gallery.html.j2").render(
        title=ledger.folder.name, groups=groups, count=sum(len(group["images"]) for group in groups)
    )
    path = ledger.folder / GALLERY
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))
    return path


def _groups(ledger: Ledger) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for key, entry in ledger.entries.items():
        if ledger.has(key):
            group = groups.setdefault(entry["prompt"], {"name": entry["prompt_name"], "prompt": entry["prompt"]})
            picture = {**entry, "thumbnail": _thumbnail(ledger.folder / entry["file"])}
            group.setdefault("images", []).append(picture)
    for group in groups.values():
        group["images"].sort(key=lambda one: (one["strength"], one["seed"], one["file"]))
    return list(groups.values())


def _thumbnail(path: Path) -> str:
    """A small WebP of the picture as a data URI."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
