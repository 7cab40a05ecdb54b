import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from fluxkit.dataset.preparing.pixels import NotAPicture, decode, read_picture, to_srgb, turned


def reopened(image: Image.Image, format_: str, **options: object) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return decode(stream.getvalue())


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the red and green primaries exchanged: a conversion that forgets the profile is easy to see."""
    data = bytearray(srgb_profile())
    tags = {}
    for index in range(int.from_bytes(data[128:132], "big")):
        at = 132 + 12 * index
        tags[bytes(data[at : at + 4])] = at
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data)


def test_a_foreign_profile_is_converted() -> None:
    image = reopened(Image.new("RGB", (8, 8), (250, 0, 0)), "PNG", icc_profile=swapped_profile())
    converted, done = to_srgb(image)
    red, green, _ = converted.getpixel((4, 4))  # type: ignore[misc]
    assert green > 200 > 50 > red
    assert done == ["srgb"]
    assert "icc_profile" not in converted.info


def test_srgb_under_any_name_changes_nothing() -> None:
    image = reopened(Image.new("RGB", (8, 8), (250, 3, 77)), "PNG", icc_profile=srgb_profile())
    converted, done = to_srgb(image)
    assert converted.getpixel((0, 0)) == (250, 3, 77)
    assert done == []


@pytest.mark.parametrize("profile", [b"no profile", srgb_profile()[:200], srgb_profile()])
def test_a_broken_or_unfitting_profile_is_told_and_passed_over(profile: bytes) -> None:
    mode = "L" if len(profile) > 200 else "RGB"  # a colour profile does not fit a grey picture
    image = reopened(Image.new(mode, (8, 8), 77), "PNG", icc_profile=profile)
    expected = image.convert("RGB").getpixel((0, 0))
    converted, done = to_srgb(image)
    assert "profile-broken" in done
    assert converted.getpixel((0, 0)) == expected


def test_transparency_goes_onto_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    converted, done = to_srgb(reopened(image, "PNG"))
    assert [converted.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (255, 0, 0)]
    assert done == ["alpha"]
    image.putpixel((0, 0), (0, 0, 9, 255))
    assert to_srgb(reopened(image, "PNG"))[1] == [], "nothing is seen of an alpha channel that is all opaque"


def test_a_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    converted, _ = to_srgb(reopened(image, "PNG", transparency=0))
    assert [converted.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]
    assert "transparency" not in converted.info


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I"])
def test_every_mode_becomes_plain_rgb(mode: str) -> None:
    image = Image.new(mode, (9, 7))
    converted, _ = to_srgb(image)
    assert (converted.mode, converted.size, converted.info) == ("RGB", (9, 7), {})


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    image = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32768, 65535)):
        image.putpixel((x, 0), value)
    converted, done = to_srgb(reopened(image, "PNG"))
    assert [converted.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]  # type: ignore[index]
    assert done == ["8-bit", "grayscale"]


@pytest.mark.parametrize(("mode", "value"), [("F", 0.5), ("I", 70000), ("I", -1)])
def test_values_without_a_range_are_refused(mode: str, value: float) -> None:
    with pytest.raises(NotAPicture, match="without a known range"):
        to_srgb(Image.new(mode, (2, 2), value))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_upright(orientation: int) -> None:
    upright = Image.new("RGB", (2, 3))
    upright.putdata([(index * 40, 0, 0) for index in range(6)])
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = turned(reopened(stored, "PNG", exif=exif))
    assert image.tobytes() == upright.tobytes()


def test_a_nonsense_orientation_is_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert turned(reopened(Image.new("RGB", (2, 3)), "PNG", exif=exif)).size == (2, 3)


def test_a_pipe_an_empty_file_and_a_bomb_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(NotAPicture, match="no ordinary file"):
        read_picture(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(NotAPicture, match="empty"):
        read_picture(tmp_path / "empty.jpg")
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += struct.pack(">I", 8) + b"IDAT"
    with pytest.raises(NotAPicture, match="too many to decode"):
        decode(bomb)
