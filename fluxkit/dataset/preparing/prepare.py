"""The clean copy, made or brought up to date: only what changed is done again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from threading import Lock

from filelock import FileLock, Timeout

from fluxkit.dataset.checks.engine import cores
from fluxkit.dataset.model import Finding
from fluxkit.dataset.preparing import manifest as records
from fluxkit.dataset.preparing.captions import CaptionPlan, clean_caption, plan_caption
from fluxkit.dataset.preparing.choose import near_duplicates
from fluxkit.dataset.preparing.convert import Converted, convert
from fluxkit.dataset.preparing.crop import face_square
from fluxkit.dataset.preparing.inturn import in_turn
from fluxkit.dataset.preparing.manifest import LeftOut, Manifest, PreparedPhoto, caption_name
from fluxkit.dataset.preparing.names import output_stems
from fluxkit.dataset.preparing.pixels import NotAPicture, quiet_pillow
from fluxkit.dataset.preparing.place import Workshop
from fluxkit.dataset.preparing.request import PrepareReport, PrepareRequest, check_folders
from fluxkit.dataset.preparing.sources import Seen, Sources, list_sources, look_at_all, source_name
from fluxkit.errors import UserError

Progress = Callable[[int, int], None]
# A picture takes about ten bytes a pixel while it is converted: larger ones than this go one after the other.
_LARGE = 40_000_000
_WORKERS = 4


def prepare(request: PrepareRequest, on_progress: Progress | None = None) -> PrepareReport:
    """Make the copy, or bring it up to date.

    Args:
        request: what to make from what.
        on_progress: called with how much is done and of how much; each picture is looked at, then written.

    Raises:
        UserError: the folders lie in each other, `target` holds something else, another `prepare` is at work, there
            is no usable picture, or the disk is full. What was finished is kept, and the next call goes on there.
    """
    check_folders(request.source, request.target)
    sources = list_sources(request.source)
    if not sources.pictures:
        message = next((finding for finding in sources.findings if finding.severity == "error"), None)
        raise UserError(
            message.message if message else f"There are no photos in {request.source}.",
            fix=message.fix if message and message.fix else "Put photos there, or correct [dataset] path.",
        )
    request.target.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.target / ".lock", timeout=0), quiet_pillow():
            return _Run(request, sources, on_progress or (lambda *_: None)).run()
    except Timeout as error:
        raise UserError("Another `fluxkit prepare` is at work here.", fix="Wait for it, or stop it.") from error
    except OSError as error:
        raise UserError(
            f"{error.filename or request.target} can't be written: {error.strerror}.",
            fix="Free some disk space or check the folder's permissions, then run `fluxkit prepare` again.",
        ) from error


class _Run:
    """One call of `prepare`, from the lock to the manifest."""

    def __init__(self, request: PrepareRequest, sources: Sources, on_progress: Progress) -> None:
        self._request, self._sources, self._on_progress = request, sources, on_progress
        self._before = records.load_before(request.target)
        self._shop = Workshop(request.target, self._before.known)
        self._reusable = self._before.photos if request.recipe.makes_the_same(self._before.recipe) else {}
        self._made: list[str] = []
        self._edited: list[str] = []
        self._conflicts: list[str] = []
        self._findings = list(sources.findings)
        self._stand_ins: dict[str, list[str]] = {}
        self._one_large = Lock()

    def run(self) -> PrepareReport:
        seen, left_out = self._look()
        if not seen:
            raise UserError(
                f"None of the {len(left_out)} photos can be used: {left_out[0].source}: {left_out[0].why}.",
                fix="Copy them again from the camera or phone, or save them as JPG or PNG.",
            )
        self._shop.begin(self._request.recipe)
        photos, spoiled = self._write(seen)
        removed = self._clear(photos)
        left_out = sorted((*left_out, *spoiled, *self._not_photos()), key=lambda one: one.source)
        manifest = Manifest(
            source=self._request.source_name,
            recipe=self._request.recipe,
            photos=tuple(photos),
            left_out=tuple(left_out),
        )
        self._shop.tidy()
        records.save_manifest(self._request.target, manifest)
        return PrepareReport(
            folder=self._request.target / records.PHOTOS_FOLDER,
            manifest=manifest,
            made=tuple(self._made),
            removed=tuple(removed),
            edited=tuple(self._edited),
            conflicts=tuple(self._conflicts),
            aside=self._shop.aside,
            findings=tuple(self._findings),
        )

    def _look(self) -> tuple[dict[str, Seen], list[LeftOut]]:
        """The pictures that go into the copy, and those that don't."""
        seen: dict[str, Seen] = {}
        left_out: list[LeftOut] = []
        total = len(self._sources.pictures)
        detector = self._request.detector if self._request.recipe.crop == "face" else None
        found = look_at_all(self._sources.pictures, detector, self._request.cache)
        for number, (name, what) in enumerate(found, start=1):
            self._on_progress(number, 2 * total)
            if isinstance(what, str):
                left_out.append(LeftOut(source=name, code="unreadable", why=what))
            else:
                seen[name] = what
        if self._request.recipe.duplicates == "leave-out":
            for name, duplicate in near_duplicates(seen).items():
                why = f"looks the same as {duplicate.instead}, {duplicate.why}"
                original = seen.pop(name).original
                self._stand_ins.setdefault(duplicate.instead, []).append(name)
                left_out.append(
                    LeftOut(source=name, code="duplicate", why=why, instead=duplicate.instead, original=original)
                )
        return seen, left_out

    def _not_photos(self) -> Iterator[LeftOut]:
        for name in self._sources.others:
            yield LeftOut(source=name, code="not-a-photo", why="is no photo that fluxkit can read (film, sound, raw)")

    def _write(self, seen: Mapping[str, Seen]) -> tuple[list[PreparedPhoto], list[LeftOut]]:
        """Convert and write what is new or changed."""
        stems = output_stems(seen)
        photos: list[PreparedPhoto] = []
        spoiled: list[LeftOut] = []
        fresh = {name: self._still_good(name, stems[name], what) for name, what in seen.items()}
        todo = [name for name, photo in fresh.items() if photo is None]

        def work(name: str) -> Converted | str:
            large = seen[name].width * seen[name].height > _LARGE
            try:
                with self._one_large if large else nullcontext():
                    return convert(self._sources.pictures[name], self._box(seen[name]))
            except NotAPicture as error:
                return str(error)

        workers = self._request.workers or min(cores(), _WORKERS)
        with closing(in_turn(work, todo, workers)) as results:
            total = len(self._sources.pictures)
            for left, (name, result) in zip(reversed(range(len(todo))), results, strict=True):
                self._on_progress(2 * total - left, 2 * total)
                if isinstance(result, str):
                    spoiled.append(LeftOut(source=name, code="unreadable", why=result))
                else:
                    fresh[name] = self._put(name, stems[name], seen[name], result)
        for name, photo in fresh.items():
            if photo is not None:
                photos.append(self._with_caption(name, photo))
        return photos, spoiled

    def _still_good(self, name: str, stem: str, seen: Seen) -> PreparedPhoto | None:
        """The record of a picture that need not be made again: unchanged, or edited by the user in the copy."""
        before = self._before.photos.get(name)
        if before is None or before.file.rpartition(".")[0] != stem:
            return None
        same_source = before.original.sha256 == seen.original.sha256 and name in self._reusable
        if not records.unchanged(self._shop.path(before.file), before.output):
            if not self._shop.is_foreign(before.file):  # missing, or an interrupted run had not come so far
                return None
            self._edited.append(before.file)
            if not same_source:
                self._conflicts.append(before.file)
        elif not same_source:
            return None
        return before.model_copy(update={"original": seen.original})

    def _box(self, seen: Seen) -> tuple[int, int, int, int] | None:
        if self._request.recipe.crop != "face":
            return None
        return face_square((seen.width, seen.height), seen.faces or ())

    def _put(self, name: str, stem: str, seen: Seen, made: Converted) -> PreparedPhoto:
        file = stem + made.suffix
        old = self._before.photos.get(name)
        no_face = self._request.recipe.crop == "face" and not seen.faces and seen.width != seen.height
        photo = PreparedPhoto(
            file=file,
            output=records.stamp_of(made.data),
            size=made.size,
            source=name,
            original=seen.original,
            done=made.done,
            notes=(*made.notes, *(["no-face"] if no_face else [])),
            caption=old.caption if old and caption_name(old.file) == caption_name(file) else None,
        )
        self._shop.announce(photo)
        self._shop.write(file, made.data)
        self._made.append(file)
        return photo.model_copy(update={"output": records.stamp(self._shop.path(file), photo.output.sha256)})

    def _with_caption(self, name: str, photo: PreparedPhoto) -> PreparedPhoto:
        """The picture's record after its caption was brought along."""
        file = caption_name(photo.file)
        plan = plan_caption(
            self._shop.path(file), self._caption_of(name), photo.caption, self._before.known.get(file, set())
        )
        photo = photo.model_copy(update={"caption": plan.copy})
        self._carry_out(file, plan, photo)
        return photo

    def _caption_of(self, name: str) -> tuple[str, bytes] | None:
        """Name and bytes of a picture's caption, or of that of a duplicate that was left out for it."""
        owners = (name, *self._stand_ins.get(name, ()))
        path = next((self._sources.captions[owner] for owner in owners if owner in self._sources.captions), None)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError as error:
            message = f"The caption can't be read: {error.strerror}."
            self._findings.append(Finding("caption.unreadable", "error", path, message, "Check its permissions."))
            return None
        if clean_caption(data) is None:
            message = "The caption is not UTF-8 text; it was copied as it is."
            fix = "Save it again with the encoding UTF-8, then run `fluxkit prepare`."
            self._findings.append(Finding("caption.not-utf8", "error", path, message, fix))
        return source_name(path, self._request.source), data

    def _carry_out(self, file: str, plan: CaptionPlan, photo: PreparedPhoto) -> None:
        if plan.action == "write":
            self._shop.announce(photo)
            self._shop.write(file, plan.text)
        elif plan.action == "remove":
            self._shop.remove(file)
        if plan.edited:
            self._edited.append(file)
        if plan.conflict:
            self._conflicts.append(file)

    def _clear(self, photos: list[PreparedPhoto]) -> list[str]:
        """Remove what earlier runs made and this one did not; what the user made or edited is moved aside."""
        wanted = {photo.file for photo in photos}
        wanted |= {caption_name(file) for file in wanted}
        stale = set(self._before.known) | {caption_name(photo.file) for photo in self._before.photos.values()}
        removed = []
        for file in sorted(stale - wanted):
            if self._shop.path(file).exists() or self._shop.path(file).is_symlink():
                self._shop.remove(file)
                removed.append(file)
        return removed
