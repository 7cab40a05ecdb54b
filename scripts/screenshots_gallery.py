"""Make the pictures of the gallery in docs/images: drawn portraits with a ledger, the page, a sheet, and Chromium.

    python scripts/screenshots_gallery.py [FOLDER]

FOLDER keeps the images and the page.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageFilter
from playwright.sync_api import Page, sync_playwright

from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.sampling.gallery import refresh_gallery
from fluxkit.sampling.grids import write_grids
from fluxkit.sampling.ledger import open_ledger
from fluxkit.sampling.plan import AdapterContent, Identity, job_key, plan_jobs
from fluxkit.sampling.writer import describe, write_image

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
PROMPTS = {
    "street": "behitek, a portrait of a man in a red coat, city street at dusk, 85mm, shallow depth of field",
    "window": "behitek, a man reading by a window, soft morning light",
}
CHECKPOINTS = ("checkpoint-1000", "checkpoint-2000", "final")
SHARPNESS = {"checkpoint-1000": 14, "checkpoint-2000": 5, "final": 0}


def make_images(folder: Path) -> None:
    """Two prompts, four seeds, three checkpoints; an earlier checkpoint is drawn softer."""
    drawn = folder.parent / "drawn"
    make_demo_dataset(drawn, "behitek", "man", count=8, size=768)
    portraits = sorted(drawn.glob("*.png"))
    jobs = plan_jobs(PROMPTS, range(42, 46), adapters=CHECKPOINTS, width=768, height=768)
    with open_ledger(folder) as ledger:
        for job in jobs:
            identity = Identity(
                "black-forest-labs/FLUX.1-dev", None, (AdapterContent(job.adapter),), "int8", wrapped=True
            )
            key = job_key(job, identity)
            path = ledger.path_for(key, job)
            number = list(PROMPTS).index(job.prompt_name) * 4 + job.seed - 42
            with Image.open(portraits[number]) as portrait:
                picture = portrait.convert("RGB").filter(ImageFilter.GaussianBlur(SHARPNESS[job.adapter]))
            write_image(path, picture, job, identity)
            ledger.add(key, path, describe(job, identity))


def main(root: Path) -> None:
    """Make the images, the page, and the pictures of it."""
    folder = root / "20261124-001-checkpoints"
    make_images(folder)
    sheet = write_grids(folder, "checkpoint", "seed")[0]
    page = refresh_gallery(folder)
    with Image.open(sheet) as image:
        keep(image.resize((image.width * 3 // 10, image.height * 3 // 10), Image.Resampling.LANCZOS), "grid")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for name, scheme, width, height in (
            ("gallery", "light", 1360, 1000),
            ("gallery-dark", "dark", 1360, 1000),
            ("gallery-phone", "dark", 390, 844),
        ):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab = context.new_page()
            tab.goto(page.as_uri())
            pick_some(tab)
            shot(tab, root, name)
            if name == "gallery":
                tab.keyboard.press("c")
                tab.keyboard.press("ArrowRight")
                tab.keyboard.press("c")
                shot(tab, root, "gallery-compare")
            context.close()
        browser.close()


def pick_some(tab: Page) -> None:
    """Reject the first checkpoint's first image, keep the last one's, and stay in between."""
    tab.locator(".card").first.focus()
    for key in ("x", "ArrowRight", "ArrowRight", "k", "ArrowLeft"):
        tab.keyboard.press(key)


def shot(tab: Page, root: Path, name: str) -> None:
    """One picture of what is to be seen."""
    tab.wait_for_timeout(500)
    raw = root / f"{name}.png"
    tab.screenshot(path=raw)
    with Image.open(raw) as image:
        keep(image, name)


def keep(image: Image.Image, name: str) -> None:
    """Into docs/images with 256 colours: a quarter of the size, and hardly a difference to the eye."""
    small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).resolve())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
