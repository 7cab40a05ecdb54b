import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.model import DatasetRules
from fluxkit.dataset.page import write_page
from fluxkit.dataset.preview import preview_training
from fluxkit.dataset.thumbnails import thumbnail_edge, thumbnails
from fluxkit.errors import UserError

RULES = DatasetRules(trigger="behitek", resolutions=(64, 32), release="4.8.0", steps=100)
SCRIPT = "<script>document.title='owned'</script>"


def page_of(folder: Path, out: Path, **options: str) -> str:
    report = check_dataset(folder, RULES)
    size = write_page(out, report, preview_training(report.images, RULES), **options)
    assert size == out.stat().st_size
    return out.read_text(encoding="utf-8")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_demo_dataset(folder, "behitek", "man", size=64)
    return folder


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_it_asks_for_nothing_from_outside(photos: Path, tmp_path: Path) -> None:
    tags = Tags(page_of(photos, tmp_path / "page.html"))
    links = [value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(str(link).startswith("data:") for link in links)
    (policy,) = [meta for meta in tags.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:;")


def test_names_and_captions_are_text_whatever_they_hold(photos: Path, tmp_path: Path) -> None:
    hostile = photos / "<img src=x onerror=alert(1)>\n\u202egnp.png"
    (photos / "demo-01.png").rename(hostile)
    (photos / "demo-01.txt").rename(hostile.with_suffix(".txt"))
    hostile.with_suffix(".txt").write_text(f'behitek {SCRIPT} "quoted" {{{{ 7 * 7 }}}} & 🙂')
    (photos / "demo-02.txt").write_bytes(b"behitek \xff\xfe")
    page = page_of(photos, tmp_path / "page.html", title=SCRIPT)
    tags = Tags(page)
    assert len(tags.all("script")) == 1
    assert all(image["src"] != "x" and "onerror" not in image for image in tags.all("img"))
    assert "&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "🙂" in page


def test_a_name_that_is_no_utf8_is_shown_all_the_same(photos: Path, tmp_path: Path) -> None:
    (photos / "demo-01.png").rename(photos / "demo-\udcff.png")
    assert "demo-?.png" in page_of(photos, tmp_path / "page.html")


def test_findings_stand_beside_their_photo_and_the_rest_on_top(photos: Path, tmp_path: Path) -> None:
    (photos / "demo-03.txt").write_text("a man")
    (photos / "demo-04.png").write_bytes(b"broken")
    cards = page_of(photos, tmp_path / "page.html").split("<article")
    (about, named) = (next(card for card in cards if f">{name}<" in card) for name in ("demo-03.png", "demo-04.png"))
    assert "caption.no-trigger" in about
    assert "a man" in about
    assert "image.unreadable" in named
    assert "<img" not in named
    assert "dataset.few" in cards[0]
    assert cards.index(about) < 3, "photos with errors come first"


def test_crops_are_drawn_in_percent_of_the_photo(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (128, 64)).save(photos / "demo-01.png")
    Image.new("RGB", (60, 120)).save(photos / "demo-02.png")
    cards = page_of(photos, tmp_path / "page.html").split("<article")
    wide, small = (next(card for card in cards if f">{name}<" in card) for name in ("demo-01.png", "demo-02.png"))
    assert 'data-resolutions="64 32" style="left: 25.000%; top: 0.000%; width: 50.000%; height: 100.000%"' in wide
    assert "64×64 → 64×64" in wide
    assert re.search(r"<b>64</b>: left out", small)


def test_no_half_page_is_left(photos: Path, tmp_path: Path) -> None:
    report = check_dataset(photos, RULES)
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(UserError, match="can't be written"):
        write_page(target, report, preview_training(report.images, RULES))
    assert list(tmp_path.glob("*.tmp*")) == []


def test_an_empty_dataset_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    page = page_of(tmp_path / "photos", tmp_path / "page.html")
    assert "dataset.empty" in page
    assert "1 error to correct" in page


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_thumbnails_are_upright_small_and_carry_nothing_but_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo = Image.new("RGB", (640, 480), "red")
    photo.paste("blue", (0, 0, 320, 480))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(path, exif=exif, icc_profile=profile, comment=b"a secret", quality=95)
    small = decoded(thumbnails([path], 100)[path])
    assert small.size == (75, 100)
    assert not small.getexif()
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    top, bottom = small.getpixel((40, 10)), small.getpixel((40, 90))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[2] > 200 > top[0]
    assert bottom[0] > 200 > bottom[2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_kind_of_picture_has_a_thumbnail(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    Image.new(mode, (50, 40)).save(path)
    assert decoded(thumbnails([path], 30)[path]).size == (30, 24)


def test_what_went_away_or_is_no_picture_has_none(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_text("no picture")
    assert thumbnails([tmp_path / "a.png", tmp_path / "b.png"], 30) == {}


def test_more_photos_smaller_thumbnails() -> None:
    edges = [thumbnail_edge(count) for count in (1, 60, 61, 1000, 20_000)]
    assert edges == [480, 480, 320, 224, 160]
