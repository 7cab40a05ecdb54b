"""`fluxkit gallery`, `fluxkit pick` and `fluxkit grid`: what is done with images that are there."""

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from fluxkit.commands.assemble import open_project
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.files import atomic_path
from fluxkit.sampling.axes import check_axis
from fluxkit.sampling.gallery import refresh_gallery
from fluxkit.sampling.grids import write_grids
from fluxkit.sampling.journal import JOURNAL, MANIFEST
from fluxkit.sampling.picks import kept
from fluxkit.sampling.server import address, gallery_server

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer


def gallery(project: Path | None, *, folder: Path | None, no_open: bool, port: int, out: Output) -> None:
    """Serve a folder's gallery until Ctrl-C; picks are saved to its `picks.json`.

    Raises:
        UserError: there are no images yet, or the port is taken.
    """
    chosen = images_folder(project, folder)
    refresh_gallery(chosen)
    server = gallery_server(chosen, port)
    out.say(f"{chosen}: picks go to picks.json there. Ctrl-C ends this.")
    out.result(address(server))
    if not no_open and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address(server),), daemon=True).start()
    serve(server)


def _has_screen() -> bool:
    """Whether a browser would open a window; without one it could be lynx, in this terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def serve(server: "ThreadingHTTPServer") -> None:
    """Answer until Ctrl-C, which ends it as it should end."""
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def pick(
    project: Path | None, *, folder: Path | None, export: Path, picks: Path | None, metadata: bool, out: Output
) -> list[Path]:
    """Copy the kept images, under their names.

    Args:
        project: the project's folder.
        folder: of images; the newest of the project by default.
        export: where the copies go; made if missing.
        picks: a `picks.json` that the page let download.
        metadata: whether the copies say how they were made.
        out: where to say things.

    Returns:
        The copies.

    Raises:
        UserError: nothing is kept, or the copies can't be written.
    """
    chosen = images_folder(project, folder)
    found = list(kept(chosen, picks))
    if not found:
        raise UserError(f"No image in {chosen} is kept.", fix="Pick some in `fluxkit gallery`: K keeps, X rejects.")
    if export.expanduser().resolve() == chosen.resolve():
        raise UserError(f"{export} is where the images are.", fix="Export to another folder.")
    copies = [_copy(path, export.expanduser() / path.name, metadata=metadata) for path in found]
    out.say(f"{len(copies)} images copied to {export}")
    out.emit({"folder": str(chosen), "export": str(export), "images": [str(path) for path in copies]})
    out.result(str(export))
    return copies


def grid(project: Path | None, *, folder: Path | None, x: str, y: str, out: Output) -> list[Path]:
    """Write sheets with axes from images that are there.

    Raises:
        UserError: there is nothing to compare.
    """
    across, down = check_axis(x), check_axis(y)
    if across == down:
        raise UserError(f"--x and --y are both {across}.", fix="For example: --x checkpoint --y seed")
    chosen = images_folder(project, folder)
    paths = write_grids(chosen, across, down)
    refresh_gallery(chosen)  # it links them
    out.emit({"grids": [str(path) for path in paths]})
    for path in paths:
        out.result(str(path))
    return paths


def images_folder(project: Path | None, folder: Path | None) -> Path:
    """The folder of images that is meant: the one named, or the project's newest.

    Raises:
        UserError: it has no images.
    """
    if folder is not None:
        candidates = [folder.expanduser()]
    else:
        samples = open_project(project).samples_dir
        candidates = sorted(samples.iterdir(), key=lambda path: path.stat().st_mtime) if samples.is_dir() else []
    for candidate in reversed(candidates):
        if (candidate / MANIFEST).is_file() or (candidate / JOURNAL).is_file():
            return candidate
    raise UserError(
        f"There are no images{f' in {folder}' if folder else ''} yet.", fix="Make some with `fluxkit sample`."
    )


def _copy(source: Path, target: Path, *, metadata: bool) -> Path:
    """The same bytes; or the same pixels in a file that says nothing of how they were made."""
    from fluxkit.sampling.writer import without_metadata

    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes() if metadata else without_metadata(source))
    return target
