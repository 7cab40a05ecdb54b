"""Makes a folder of damaged and hostile files, and says what must be reported about each."""

import io
import os
import struct
import zlib
from pathlib import Path

from PIL import Image

PIPE, LOOP, DEVICE = "pipe.jpg", "loop-a.jpg", "zero.jpg"


def make_corpus(folder: Path) -> set[str]:
    """Write the corpus; returns the names of pictures that must be reported as errors."""
    folder.mkdir()
    bad = _truncated(folder) | _wrong_contents(folder) | _bombs(folder) | _no_files(folder)
    _odd_names(folder)
    _odd_pictures(folder)
    _odd_captions(folder)
    return bad


def photo(width: int = 160, height: int = 120) -> Image.Image:
    """Noise over a gradient: every cut of its file hits coded data."""
    noise = Image.effect_noise((width, height), 60)
    return Image.merge("RGB", (noise, Image.linear_gradient("L").resize((width, height)), noise.transpose(1)))


def encoded(image: Image.Image, **options: object) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


VARIANTS = {
    "baseline.jpg": lambda: encoded(photo(), format="JPEG", quality=90),
    "progressive.jpg": lambda: encoded(photo(), format="JPEG", quality=90, progressive=True),
    "large.jpg": lambda: encoded(photo(2000, 1600), format="JPEG", quality=50),
    "grey.jpg": lambda: encoded(photo().convert("L"), format="JPEG"),
    "cmyk.jpg": lambda: encoded(photo().convert("CMYK"), format="JPEG"),
    "phone.jpg": lambda: encoded(photo(), format="MPO", save_all=True, append_images=[photo(80, 60)]),
    "colour.png": lambda: encoded(photo(), format="PNG"),
    "palette.png": lambda: encoded(photo().convert("P"), format="PNG"),
    "lossy.webp": lambda: encoded(photo(), format="WEBP"),
    "lossless.webp": lambda: encoded(photo(), format="WEBP", lossless=True),
}


def _truncated(folder: Path) -> set[str]:
    """Each variant cut at every sixteenth, one byte before its end, and with zeros for its second half."""
    bad = set()
    for name, make in VARIANTS.items():
        content, (stem, suffix) = make(), name.split(".")
        broken = {f"{part:02d}": content[: len(content) * part // 16] for part in range(1, 16)}
        broken |= {"last": content[:-1], "zeros": content[: len(content) // 2] + bytes(len(content) // 2)}
        for kind, data in broken.items():
            (folder / f"{stem}-{kind}.{suffix}").write_bytes(data)
            bad.add(f"{stem}-{kind}.{suffix}")
    return bad


def _wrong_contents(folder: Path) -> set[str]:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    contents = {
        "nothing.jpg": b"",
        "nothing.png": b"",
        "nothing.webp": b"",
        "page.jpg": b"<html>404</html>",
        "text.png": b"behitek a man",
        "archive.jpg": b"PK\x03\x04" + bytes(100),
        "document.jpg": b"%PDF-1.7\n",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "postscript.jpg": postscript,
        "program.jpg": b"\x7fELF" + bytes(200),
        "random.jpg": bytes(range(256)) * 40,
        "only-magic.jpg": b"\xff\xd8\xff",
        "only-magic.png": b"\x89PNG\r\n\x1a\n",
        "only-magic.webp": b"RIFF\x00\x00\x00\x00WEBP",
        "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
        "gif.jpg": encoded(photo().convert("P"), format="GIF"),
        "bmp.png": encoded(photo(), format="BMP"),
        "tiff.jpg": encoded(photo(), format="TIFF"),
        "ico.png": encoded(photo(64, 64), format="ICO"),
        "jpeg.png": encoded(photo(), format="JPEG"),
        "png.jpg": encoded(photo(), format="PNG"),
        "webp.jpg": encoded(photo(), format="WEBP"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return set(contents)


def png(width: int, height: int, *, colour: int = 2, depth: int = 8, rows: int | None = None) -> bytes:
    """A black PNG that is small however large it claims to be; `rows` fewer than `height` make it incomplete."""
    row = 1 + -(-width * {0: 1, 2: 3}[colour] * depth // 8)
    packer = zlib.compressobj(1)
    data = [packer.compress(bytes(row)) for _ in range(height if rows is None else rows)]
    data.append(packer.flush())
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", b"".join(data)),
        (b"IEND", b""),
    ]
    written = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + written


def _bombs(folder: Path) -> set[str]:
    jpeg = bytearray(VARIANTS["baseline.jpg"]())
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    text = zlib.compress(bytes(80 << 20))
    chunk = b"zTXt" + b"Comment\0\0" + text
    bomb = png(100, 100)
    commented = bomb[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bomb[33:]
    contents = {
        "bomb-bits.png": png(50_000, 50_000, colour=0, depth=1, rows=10),
        "bomb-claims.png": png(60_000, 60_000, rows=10),
        "bomb-largest.png": png(2**31 - 1, 2**31 - 1, rows=0)
        if struct.calcsize("P") < 4
        else png(65_535, 65_535, rows=2),
        "bomb-nothing.png": png(0, 0),
        "bomb-short.png": png(12_000, 12_000, rows=100),
        "bomb.jpg": bytes(jpeg),
        "strip-1.png": png(1, 60_000),
        "strip-2.png": png(60_000, 1),
        "pixel.png": png(1, 1),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    # These decode, and take hundreds of megabytes: one after the other, or memory wouldn't hold.
    (folder / "huge-a.png").write_bytes(png(10_000, 10_000))
    (folder / "huge-b.png").write_bytes(png(13_000, 13_000, colour=0))
    (folder / "commented.png").write_bytes(commented)
    with (folder / "sparse.jpg").open("wb") as sparse:
        sparse.truncate(3 << 30)
    return {*contents, "sparse.jpg", "commented.png"}


def _no_files(folder: Path) -> set[str]:
    os.mkfifo(folder / PIPE)
    os.mkfifo(folder / "pipe.txt")
    (folder / LOOP).symlink_to("loop-b.jpg")
    (folder / "loop-b.jpg").symlink_to(LOOP)
    (folder / "itself.jpg").symlink_to("itself.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / DEVICE).symlink_to("/dev/zero")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "around").symlink_to(folder)
    (folder / "up").symlink_to("..")
    (folder / "to-a-folder.jpg").symlink_to("folder.jpg")
    return {PIPE, LOOP, "loop-b.jpg", "itself.jpg", "gone.jpg", DEVICE}


ODD_NAMES = (
    "new\nline.png",
    "carriage\rreturn.png",
    "tab\t.png",
    "bell\x07.png",
    "escape\x1b[31mred\x1b[0m.png",
    "title\x1b]0;owned\x07.png",
    "delete\x7f.png",
    "next\x85line.png",
    "csi\x9b31m.png",
    "right\u202eto-left.png",
    "isolate\u2066x\u2069.png",
    "mark\u200f.png",
    "nothing\u200b.png",
    "joiner\u2060.png",
    "\ufeffbom.png",
    "line\u2028separator.png",
    "tag\U000e0041.png",
)
PLAIN_NAMES = (
    "emoji 😀👩‍🚀.png",
    "写真.png",
    "Zoë.png",
    "Zoe\u0308.png",  # the same to a Mac
    "Case.png",
    "case.png",
    "ß.png",
    "ss.png",
    " leading.png",
    "trailing .png",
    "-rf.png",
    "--help.png",
    "$(touch owned).png",
    "`x`.png",
    "a'b\"c.png",
    "[bold red]markup.png",
    "%s%n{0}.png",
    "..png",
    "...png",
    "con.png",
    "a" * 251 + ".png",
    "é" * 125 + "x.png",
    "dots.in.the.name.png",
    "x.PNG",
)
NOT_UTF8 = b"bytes-\xff\xfe.png"


def _odd_names(folder: Path) -> None:
    content = encoded(photo(64, 64), format="PNG")
    for name in (*ODD_NAMES, *PLAIN_NAMES):
        (folder / name).write_bytes(content)
    Path(os.fsdecode(bytes(folder) + b"/" + NOT_UTF8)).write_bytes(content)


def _odd_pictures(folder: Path) -> None:
    """Whole pictures of rare kinds, and headers that lie."""
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\x12\x01\x03\x00\xff\xff\xff\xff\x06\x00\x00\x00" * 4
    Image.new("I;16", (90, 90), 30_000).save(folder / "sixteen.png")
    Image.new("1", (90, 90)).save(folder / "one-bit.png")
    Image.new("LA", (90, 90), (90, 9)).save(folder / "see-through.png")
    Image.new("RGBA", (90, 90), (9, 9, 9, 0)).save(folder / "invisible.webp")
    photo().save(folder / "bad-exif.jpg", exif=exif)
    photo().save(folder / "bad-profile.jpg", icc_profile=b"\xff" * 300)
    photo().save(folder / "trailer.jpg", quality=80)
    with (folder / "trailer.jpg").open("ab") as handle:
        handle.write(bytes(70_000) + b"SEFT")
    photo().save(folder / "moves.webp", save_all=True, append_images=[photo()])
    photo().save(folder / "moves.png", save_all=True, append_images=[photo()])
    photo().save(folder / "denied.jpg", quality=90)
    (folder / "denied.jpg").chmod(0)


def _odd_captions(folder: Path) -> None:
    contents = {
        "huge": b"behitek " * (1 << 18),
        "nul": b"behitek\x00\x00",
        "utf16": "behitek a man".encode("utf-16"),
        "latin": "behitek café".encode("latin-1"),
        "escape": b"\x1b[2Jbehitek",
        "lines": b"\n" * 5000,
        "words": b"behitek " + b"word " * 3000,
    }
    for name, content in contents.items():
        photo(64, 64).save(folder / f"caption-{name}.png")
        (folder / f"caption-{name}.txt").write_bytes(content)
    photo(64, 64).save(folder / "caption-loop.png")
    (folder / "caption-loop.txt").symlink_to("caption-loop.txt")
    photo(64, 64).save(folder / "caption-folder.png")
    (folder / "caption-folder.txt").mkdir()
