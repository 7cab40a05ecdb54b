"""Make the pictures of the report in docs/images: a made-up dataset with faults, its page, and Chromium.

    python scripts/screenshots.py [FOLDER]

FOLDER keeps the project and the page.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from fluxkit.commands.validate import validate
from fluxkit.console import Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--disable-component-update")
ORIENTATION = 0x0112
# Width and height that each drawn square is cut to, in turn.
SHAPES = ((1600, 1067), (1067, 1600), (1600, 1600), (1600, 1200), (1200, 1600), (1600, 1080), (1024, 1024))
TOML = """[project]
name = "portraits"
trigger = "behitek"
subject = "man"
[dataset]
resolutions = [1024, 512]
[train]
steps = 10000
"""


def make_project(root: Path) -> None:
    """Twenty-one drawn portraits of many shapes; some turned, small, without a caption, or broken."""
    photos = root / "dataset"
    make_demo_dataset(photos, "behitek", "man", count=21, size=1600)
    for index, path in enumerate(sorted(photos.glob("*.png"))):
        width, height = SHAPES[index % len(SHAPES)]
        left, top = (1600 - width) // 2, (1600 - height) // 2
        with Image.open(path) as image:
            image.crop((left, top, left + width, top + height)).save(path.with_suffix(".jpg"), quality=88)
        path.unlink()
    turned = photos / "demo-05.jpg"
    with Image.open(turned) as image:
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        image.rotate(90, expand=True).save(turned, exif=exif, quality=88)
    with Image.open(photos / "demo-09.jpg") as image:
        image.resize((image.width * 6 // 10, image.height * 6 // 10)).save(photos / "demo-09.jpg", quality=88)
    (photos / "demo-12.txt").unlink()
    (photos / "demo-14.txt").write_text("a drawn portrait of behitek, a man in a green shirt\n", encoding="utf-8")
    whole = (photos / "demo-17.jpg").read_bytes()
    (photos / "demo-17.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "fluxkit.toml").write_text(TOML, encoding="utf-8")


def main(root: Path) -> None:
    """Make the project, its page, and the pictures."""
    make_project(root)
    page = root / "report.html"
    try:
        validate(root, html=page, out=Output())
    except UserError as error:
        print(error.message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, "--no-sandbox"])
        for scheme in ("light", "dark"):
            shot(browser, page, f"validate-{scheme}", scheme, 1360, 1500)
        shot(browser, page, "validate-phone", "dark", 390, 844)
        browser.close()


def shot(browser: object, page: Path, name: str, scheme: str, width: int, height: int) -> None:
    """One picture of the top of the page."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[attr-defined]
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.evaluate("document.querySelector('.path bdi').textContent = '~/portraits/dataset'")
    tab.wait_for_timeout(300)
    raw = page.with_name(f"{name}.png")
    tab.screenshot(path=raw)
    with Image.open(raw) as image:  # 256 colours: a quarter of the size, and no difference to the eye
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            ROOT / "docs" / "images" / raw.name, optimize=True
        )
    context.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
