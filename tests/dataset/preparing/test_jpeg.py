import io

import pytest
from PIL import Image

from fluxkit.dataset.preparing.jpeg import strip_jpeg


def noise(size: tuple[int, int] = (97, 61)) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise(size, 80 + 20 * i) for i in range(3)])


def exif_with_gps() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 12.0)
    return exif


def encoded(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
def test_same_pixels_without_metadata(options: dict[str, object]) -> None:
    data = encoded(
        noise(), quality=90, exif=exif_with_gps(), comment=b"SecretComment", icc_profile=b"SecretProfile", **options
    )
    stripped = strip_jpeg(data)
    assert stripped is not None
    assert b"Secret" not in stripped
    with Image.open(io.BytesIO(stripped)) as after, Image.open(io.BytesIO(data)) as before:
        assert after.tobytes() == before.tobytes()
        assert not after.getexif()
        assert not {"exif", "comment", "icc_profile"} & set(after.info)


def test_what_follows_the_picture_goes() -> None:
    data = encoded(noise())
    film = data + b"\0\0\0\x18ftypmp42 a motion photo"
    assert strip_jpeg(film) == strip_jpeg(data) == data
    phone = io.BytesIO()
    noise().save(phone, "MPO", save_all=True, append_images=[noise((32, 32))])
    stripped = strip_jpeg(phone.getvalue())
    assert stripped is not None
    with Image.open(io.BytesIO(stripped)) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == ("JPEG", 1)


def test_a_thumbnail_in_the_jfif_header_goes() -> None:
    data = encoded(noise())
    assert data[2:4] == b"\xff\xe0"
    header = data[6:20]
    thumbnail = b"\x01\x01" + b"\xab\xcd\xef"
    payload = header[:12] + thumbnail
    fat = data[:4] + (len(payload) + 2).to_bytes(2, "big") + payload + data[20:]
    with Image.open(io.BytesIO(fat)) as image:
        image.load()
    assert strip_jpeg(fat) == data


@pytest.mark.parametrize("damage", [lambda d: b"\x89PNG" + d, lambda d: d[:30], lambda d: d[:2] + b"\x00" + d[3:]])
def test_what_is_not_plain_is_refused(damage: "object") -> None:
    assert strip_jpeg(damage(encoded(noise()))) is None  # type: ignore[operator]
