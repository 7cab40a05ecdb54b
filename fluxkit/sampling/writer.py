"""Images that say how they were made: the `parameters` text that other programs read, and in PNG JSON beside it.

PNG carries it in text chunks; WebP and JPEG in EXIF's UserComment, as AUTOMATIC1111 does, and in nothing else.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluxkit import __version__
from fluxkit.errors import UserError
from fluxkit.files import atomic_path
from fluxkit.sampling.plan import Identity, Job

if TYPE_CHECKING:
    from PIL.Image import Image

_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_UNICODE = b"UNICODE\0"
_PNG_TEXT = (b"iTXt", b"tEXt", b"zTXt", b"eXIf")


def describe(job: Job, identity: Identity) -> dict[str, Any]:
    """What the `fluxkit` chunk and the manifest say of an image."""
    return {
        "prompt_name": job.prompt_name,
        "prompt": job.prompt,
        "seed": job.seed,
        "num_inference_steps": job.num_inference_steps,
        "guidance_scale": job.guidance_scale,
        "width": job.width,
        "height": job.height,
        "base": identity.base,
        "revision": identity.revision,
        "adapter": job.adapter,
        "adapters": [asdict(one) for one in identity.adapters],
        "strength": job.strength,
        "quantization": identity.quantization,
        "wrapped": identity.wrapped,
        "first_block_cache": identity.first_block_cache,
        "fluxkit": __version__,
    }


def parameters(job: Job, identity: Identity) -> str:
    """The `parameters` text in AUTOMATIC1111's form: the prompt, then one line of `Key: value` pairs.

    Values holding a comma, a colon or a newline are JSON-quoted, as its parser expects.
    """
    pairs: dict[str, object] = {
        "Steps": job.num_inference_steps,
        "Sampler": "Euler",
        "CFG scale": 1.0,  # FLUX.1-dev's guidance is distilled: no second pass
        "Distilled CFG Scale": job.guidance_scale,
        "Seed": job.seed,
        "Size": f"{job.width}x{job.height}",
        "Model": Path(identity.base).name,
        "Quantization": identity.quantization,
    }
    if identity.first_block_cache is not None:
        pairs["First block cache"] = f"{identity.first_block_cache:g} (lossy)"
    if identity.adapters:
        pairs["Lora hash"] = " ".join(one.sha256[:12] for one in identity.adapters)
        pairs["Lora strength"] = job.strength
    pairs["Version"] = f"fluxkit {__version__}"
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items())
    return f"{job.prompt}\n{line}"


def write_image(path: Path, image: "Image", job: Job, identity: Identity, *, metadata: bool = True) -> None:
    """Write a picture in the format of the path's ending; the file is whole or absent.

    Args:
        path: ends with `.png`, `.webp` or `.jpeg`.
        image: the picture.
        job: what it shows.
        identity: what it was made with.
        metadata: whether the file says so.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    text = _encodable(parameters(job, identity)) if metadata else None
    facts = json.dumps(describe(job, identity), ensure_ascii=True) if metadata else None
    # Its folder was made when the run began; one that is gone is not made anew, on whatever disk is there now.
    with atomic_path(path, make_folder=False) as temporary:
        save_picture(temporary, image, text, facts)


def save_picture(path: Path, image: "Image", text: str | None, facts: str | None = None) -> None:
    """Write a picture with the `parameters` text, and in a PNG with the JSON facts, where they aren't None."""
    ending = path.suffix
    if ending == ".png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        # iTXt is UTF-8; tEXt is Latin-1 and would lose an emoji. `prompt` is ComfyUI's graph: never written.
        if text is not None:
            info.add_itxt("parameters", text)
        if facts is not None:
            info.add_itxt("fluxkit", facts)
        image.save(path, format="PNG", pnginfo=info)
        return
    options: dict[str, Any] = {"exif": _user_comment(text)} if text is not None else {}
    if ending == ".webp":
        image.save(path, format="WEBP", quality=95, method=4, **options)
    else:
        image.convert("RGB").save(path, format="JPEG", quality=95, subsampling=0, **options)


def read_parameters(path: Path) -> str | None:
    """The `parameters` text that a picture carries, as other programs find it; None without one."""
    from PIL import Image

    with Image.open(path) as image:
        if image.format == "PNG":
            text = image.info.get("parameters")
            return None if text is None else str(text)
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return None
    return comment[len(_UNICODE) :].decode("utf-16-be")


def without_metadata(path: Path) -> bytes:
    """A picture's file without what it says of itself; PNG and WebP chunks are left out, the pixels stay to the bit.

    Raises:
        UserError: it is no whole PNG, WebP or JPEG.
    """
    data = path.read_bytes()
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return b"".join((data[:8], *(whole for kind, whole in _png_chunks(data) if kind not in _PNG_TEXT)))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _bare_webp(data)
        return b"".join(_jpeg_without_apps(data))
    except (struct.error, IndexError) as error:
        raise UserError(f"{path} is damaged.", fix="Make it again with `fluxkit sample --verify`.") from error


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = 8
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield data[start + 4 : start + 8], data[start : start + length + 12]
        start += length + 12


def _bare_webp(data: bytes) -> bytes:
    """RIFF without EXIF and XMP; VP8X's flags say which chunks there are."""
    chunks, start = [], 12
    while start < len(data):
        kind, (length,) = data[start : start + 4], struct.unpack_from("<I", data, start + 4)
        whole = bytearray(data[start : start + 8 + length + length % 2])
        start += len(whole)
        if kind == b"VP8X":
            whole[8] &= ~0b1100  # EXIF, XMP
        if kind not in (b"EXIF", b"XMP "):
            chunks.append(bytes(whole))
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_without_apps(data: bytes) -> Iterator[bytes]:
    """Segments but for EXIF (APP1) and comments; from the first scan on the data stays as it is."""
    yield data[:2]
    start = 2
    while data[start + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, start + 2)
        if data[start + 1] not in (0xE1, 0xFE):
            yield data[start : start + 2 + length]
        start += 2 + length
    yield data[start:]


def _user_comment(text: str) -> bytes:
    """An EXIF block with UserComment alone: UTF-16, big endian, as piexif and so AUTOMATIC1111 write it."""
    from PIL import Image

    exif = Image.Exif()
    exif.endian = ">"
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE + text.encode("utf-16-be", "replace")
    return exif.tobytes()


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:\n"') else value


def _encodable(text: str) -> str:
    """Lone surrogates (a prompt from a broken terminal) have no UTF-8; a NUL ends a text chunk."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
