"""Small upright JPEGs as data URIs, with nothing in them but pixels."""

import base64
import io
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_QUALITY = 72
# Edge in pixels by how many photos there are, so that a page with 1,000 stays one that opens.
_EDGES = ((60, 480), (300, 320), (1200, 224))
_LEAST_EDGE = 160


def thumbnail_edge(count: int) -> int:
    """The longer edge of each thumbnail, in pixels, for that many photos."""
    return next((edge for most, edge in _EDGES if count <= most), _LEAST_EDGE)


def thumbnails(paths: Iterable[Path], edge: int) -> dict[Path, str]:
    """A `data:` URI for each picture that can be read, made on all cores.

    Args:
        paths: the pictures.
        edge: the longer edge, in pixels.
    """
    paths = list(paths)
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's, about odd EXIF and large pictures
        made = pool.map(lambda path: _thumbnail(path, edge), paths)
        return {path: uri for path, uri in zip(paths, made, strict=True) if uri is not None}


def _thumbnail(path: Path, edge: int) -> str | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            image.draft("RGB", (edge, edge))  # a JPEG is decoded at an eighth of its size where that is enough
            image.thumbnail((edge, edge), reducing_gap=2.0)
            upright = ImageOps.exif_transpose(image)
            small = _on_white(_in_srgb(upright))
    except Exception:  # Pillow's decoders raise what they like; a page without one picture is still a page
        return None
    # A new picture: Pillow would write the old one's EXIF, comment and colour profile along.
    clean = Image.new("RGB", small.size)
    clean.paste(small)
    buffer = io.BytesIO()
    clean.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _in_srgb(image: "Image.Image") -> "Image.Image":
    """The picture in sRGB; as it is where its profile is broken."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    return converted or image


def _on_white(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
