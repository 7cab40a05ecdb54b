"""Whether a worker on another machine sees the same files as the run that sent it."""

import contextlib
import secrets
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fluxkit import __version__
from fluxkit.errors import UserError
from fluxkit.files import sha256_file, write_text
from fluxkit.sampling.work import Work

_SHARED = "Every machine must see them under the same path: docs/scale.md says how."


@dataclass(frozen=True)
class Landmarks:
    """What must look the same from everywhere.

    Args:
        folder: where the images go.
        token: contents of a file in it that was written for this run.
        adapters: files and their SHA-256.
        base: the base model's folder; None for a Hub id, which each machine downloads for itself.
        version: of fluxkit.
    """

    folder: Path
    token: str
    adapters: tuple[tuple[Path, str], ...]
    base: Path | None
    version: str

    @property
    def token_file(self) -> Path:
        """Named as a temporary file, so that the next run clears it away if this one is killed."""
        return self.folder / f".sight-{self.token[:16]}.tmp"


@contextlib.contextmanager
def landmarks(folder: Path, work: Work) -> Iterator[Landmarks]:
    """Put the token into the folder, for as long as workers may come.

    Raises:
        UserError: the folder can't be written.
    """
    adapters = {
        one.path: content.sha256
        for name, stack in work.adapters.items()
        if name in work.identities
        for one, content in zip(stack, work.identities[name].adapters, strict=True)
    }
    base = Path(work.base)
    found = Landmarks(
        folder, secrets.token_hex(32), tuple(adapters.items()), base if base.is_dir() else None, __version__
    )
    write_text(found.token_file, found.token)
    try:
        yield found
    finally:
        with contextlib.suppress(OSError):
            found.token_file.unlink()


def check_sight(known: Landmarks) -> None:
    """Check, on a worker, that it sees what the run sees.

    Raises:
        UserError: it does not; the message names the machine and the path.
    """
    here = f"The worker on {socket.gethostname()}"
    if known.version != __version__:
        raise UserError(
            f"{here} has fluxkit {__version__}, this machine has {known.version}.",
            fix="Install the same version on all machines, and start Ray there again.",
        )
    try:
        same = known.token_file.read_text() == known.token
    except (OSError, ValueError):
        same = False
    if not same:
        raise UserError(f"{here} can't see the images' folder {known.folder}.", fix=_SHARED)
    try:
        with tempfile.NamedTemporaryFile(dir=known.folder, prefix=".sight-", suffix=".tmp"):
            pass
    except OSError as error:
        raise UserError(
            f"{here} can't write into {known.folder}: {error.strerror or error}.",
            fix="Run Ray there as a user who may, or change the folder's permissions.",
        ) from error
    for path, digest in known.adapters:
        try:
            same = sha256_file(path) == digest
        except OSError:
            same = False
        if not same:
            raise UserError(f"{here} can't see the adapter {path}, or sees another one there.", fix=_SHARED)
    if known.base is not None and not (known.base / "model_index.json").is_file():
        raise UserError(f"{here} can't see the base model {known.base}.", fix=_SHARED)
