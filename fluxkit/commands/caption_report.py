"""What `fluxkit caption` says of its captions, to people and to programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluxkit.captioning.review import Reviewed
from fluxkit.captioning.run import Captioned
from fluxkit.captioning.store import caption_path
from fluxkit.console import Output, printable
from fluxkit.dataset.checks.wording import traits
from fluxkit.dataset.subjects import is_person
from fluxkit.errors import UserError


def say_plan(folder: Path, total: int, todo: int, overwrite: bool, out: Output) -> None:
    """What is about to be done."""
    kept = total - todo
    if not todo:
        made = "was made by this model already" if overwrite else "has a caption; --overwrite makes new ones"
        out.say(f"Every one of the {total} photos in {folder} {made}")
    elif kept:
        out.say(f"{todo} of {total} photos to caption; {kept} captions stay as they are")
    else:
        out.say(f"{todo} photos to caption in {folder}")


def say_result(result: Captioned, folder: Path, number: int, total: int, out: Output) -> None:
    """What became of one picture."""
    name = shown(result.picture, folder)
    if result.status == "failed":
        out.warn(f"{name}: {result.why}")
        return
    out.say(f"  {number}/{total} {name}: {printable(result.caption)}")
    if result.backup:
        out.detail(f"      the older caption is now {printable(result.backup.name)}")


def say_traits(subject: str, pictures: Sequence[Path], folder: Path, out: Output) -> dict[Path, dict[str, str]]:
    """Which captions describe the person: those words would learn what the trigger should."""
    if not is_person(subject):
        return {}
    named = {}
    for picture in pictures:
        path = caption_path(picture)
        found = traits(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
        if found:
            named[picture] = found
            words = ", ".join(f'"{printable(" ".join(said.split()))}" ({kind})' for kind, said in found.items())
            out.warn(f"{shown(path, folder)} describes the person: {words}")
    if named:
        out.say("Take such words out, or the trigger learns less: `fluxkit caption --review` opens each caption.")
    return named


def say_end(results: Sequence[Captioned], folder: Path, out: Output) -> None:
    """The totals.

    Raises:
        UserError: some pictures got no caption.
    """
    made = [result for result in results if result.status == "made"]
    backups = sum(result.backup is not None for result in made)
    if made:
        kept = f"; {backups} older ones are kept beside them as .txt.bak" if backups else ""
        out.say(f"{len(made)} captions made{kept}. Look them over: `fluxkit caption --review`")
    out.result(str(folder))
    failed = len(results) - len(made)
    if failed:
        raise UserError(
            f"{failed} of {len(results)} photos got no caption.",
            fix="Write those by hand, or replace the photos named above; then run `fluxkit validate`.",
        )


def as_json(
    folder: Path,
    pictures: Sequence[Path],
    results: Sequence[Captioned],
    reviewed: Sequence[Reviewed],
    named: Mapping[Path, Mapping[str, str]],
) -> dict[str, Any]:
    """The same as JSON data; paths are relative to the folder."""
    by_picture = {result.picture: result for result in results}
    photos = []
    for picture in pictures:
        result = by_picture.get(picture)
        entry: dict[str, Any] = {"file": shown(picture, folder), "status": result.status if result else "kept"}
        if result and result.status == "made":
            entry |= {"caption": result.caption, "backup": result.backup.name if result.backup else None}
        elif result:
            entry["why"] = result.why
        photos.append(entry | {"traits": named.get(picture, {})})
    return {"folder": str(folder), "photos": photos, "reviewed": len(reviewed)}


def shown(path: Path, folder: Path) -> str:
    """A file's name below the folder, as text that a terminal takes."""
    return printable(str(path.relative_to(folder)))
