"""Pictures through a model in batches; each caption is on disk as soon as it is made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from fluxkit.captioning.store import CaptionStore, caption_path
from fluxkit.captioning.text import caption_text
from fluxkit.errors import GpuMemoryError

if TYPE_CHECKING:
    from PIL.Image import Image

# Models look at 768 pixels or less a side; larger pictures only take memory.
_EDGE = 1024


@dataclass(frozen=True)
class Description:
    """What a model said of a picture, and whether it came to an end by itself."""

    text: str
    complete: bool = True


class Captioner(Protocol):
    """A loaded model."""

    def describe(self, images: "Sequence[Image]") -> list[Description] | None:
        """A description of each picture (RGB, upright); None when memory ran out."""
        ...


@dataclass(frozen=True)
class Captioned:
    """What became of one picture.

    Args:
        picture: the file.
        status: `made`, or `failed`: then `why` says so, and no file was touched.
        caption: the text.
        backup: where the older caption is now.
        why: the reason, for people.
    """

    picture: Path
    status: Literal["made", "failed"]
    caption: str = ""
    backup: Path | None = None
    why: str = ""


def caption_pictures(
    pictures: Sequence[Path],
    captioner: Captioner,
    store: CaptionStore,
    *,
    load: "Callable[[Path], Image]",
    trigger: str,
    model_key: str,
    batch_size: int,
) -> Iterator[Captioned]:
    """Caption pictures, in their order; a picture that can't be read doesn't stop the others.

    Args:
        pictures: the files.
        captioner: the model.
        store: where captions go.
        load: opens a picture, upright and RGB; raises ValueError or OSError.
        trigger: begins every caption.
        model_key: names the model and its settings in the record.
        batch_size: pictures at once; halved, for the rest too, whenever memory runs out.

    Raises:
        GpuMemoryError: not even one picture fits.
        UserError: a caption can't be written; those before it are.
    """
    waiting = list(pictures)
    while waiting:
        batch: list[tuple[Path, Image]] = []
        failed: list[Captioned] = []
        while waiting and len(batch) < batch_size:
            _open(waiting.pop(0), load, batch, failed)
        yield from failed
        while batch:
            some = batch[:batch_size]
            described = captioner.describe([image for _, image in some])
            if described is None:
                if len(some) == 1:
                    raise _too_large(some[0][0])
                batch_size = len(some) // 2
                continue
            for (picture, _), description in zip(some, described, strict=True):
                yield _keep(picture, description, store, trigger, model_key)
            del batch[: len(some)]


def _open(
    picture: Path,
    load: "Callable[[Path], Image]",
    batch: "list[tuple[Path, Image]]",
    failed: list[Captioned],
) -> None:
    path = caption_path(picture)
    if path.exists() and not path.is_file():
        failed.append(Captioned(picture, "failed", why=f"{path.name} is in the way: it is no file"))
        return
    try:
        image = load(picture)
        image.thumbnail((_EDGE, _EDGE))
        batch.append((picture, image))
    except (ValueError, OSError, MemoryError) as error:
        failed.append(Captioned(picture, "failed", why=f"the picture can't be used: {error}"))


def _keep(picture: Path, description: Description, store: CaptionStore, trigger: str, model_key: str) -> Captioned:
    text = caption_text(description.text, trigger, complete=description.complete)
    if not text:
        return Captioned(picture, "failed", why="the model said nothing that could be a caption")
    return Captioned(picture, "made", text, store.write(picture, text, model_key))


def _too_large(picture: Path) -> GpuMemoryError:
    return GpuMemoryError(
        f"There is not enough memory to describe one picture at a time ({picture.name}).",
        fix="Close other programs that use the GPU, or name a smaller model with --model.",
    )
