"""The report's page as a browser runs it: what is drawn, what the filters do, what leaves the machine."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fluxkit.dataset.check import check_dataset
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.dataset.model import DatasetReport, DatasetRules, Finding
from fluxkit.dataset.page import write_page
from fluxkit.dataset.preview import preview_training
from tests.chromium import browser, in_chromium

__all__ = ["browser"]  # a fixture

RULES = DatasetRules(trigger="behitek", resolutions=(64, 32), release="4.8.0", steps=100)

pytestmark = in_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DatasetReport:
    """Nine photos: two with errors, one turned, one with 16 bits, one hostile; the folder has a warning."""
    folder = tmp_path_factory.mktemp("photos")
    make_demo_dataset(folder, "behitek", "man", count=9, size=64)
    (folder / "demo-02.txt").write_text("a man with a guitar")
    Image.new("RGB", (60, 120), "teal").save(folder / "demo-03.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 64), "teal").save(folder / "demo-04.png", exif=exif)
    levels = np.random.default_rng(0).integers(0, 2**16, (64, 64), dtype=np.uint16)
    Image.fromarray(levels).save(folder / "demo-06.png")
    hostile = "<img src=x onerror=\"document.title='owned'\">.png"
    (folder / "demo-05.png").rename(folder / hostile)
    (folder / "demo-05.txt").rename((folder / hostile).with_suffix(".txt"))
    (folder / hostile).with_suffix(".txt").write_text("behitek <script>document.title='owned'</script></textarea>")
    return check_dataset(folder, RULES)


@pytest.fixture
def tab(browser: Any, report: DatasetReport, tmp_path: Path) -> Iterator[Any]:
    page = tmp_path / "page.html"
    write_page(page, report, preview_training(report.images, RULES), title="portraits")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.requests, opened.errors = [], []
    opened.on("request", lambda request: opened.requests.append(request.url))
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
    opened.goto(page.as_uri())
    yield opened
    context.close()
    assert opened.errors == []


def shown(tab: Any) -> list[str]:
    # What lies below the fold is not laid out yet, so it has no inner text.
    return [card.locator("h3").text_content() for card in tab.locator(".card:visible").all()]


def test_every_photo_is_shown_and_counted(tab: Any, report: DatasetReport) -> None:
    assert sorted(shown(tab)) == sorted(facts.path.name for facts in report.images)
    assert tab.locator("#count").inner_text() == "9 of 9 shown"
    assert tab.locator(".verdict .bad").inner_text() == f"{len(report.of('error'))} errors to correct before training"
    assert tab.locator("#folder").inner_text().count("dataset.few") == 1


def test_nothing_is_asked_for_but_the_page_itself(tab: Any) -> None:
    assert len([url for url in tab.requests if not url.startswith("data:")]) == 1
    assert tab.requests[0].startswith("file://")


def test_hostile_names_and_captions_did_nothing(tab: Any) -> None:
    assert tab.title() == "portraits: dataset report · fluxkit"
    assert "<img src=x onerror=\"document.title='owned'\">.png" in shown(tab)
    caption = tab.locator(".caption", has_text="</textarea>").inner_text()
    assert "<script>document.title='owned'</script></textarea>" in caption


@pytest.mark.parametrize("severity", ["error", "info", "clean"])
def test_the_severity_filter(tab: Any, report: DatasetReport, severity: str) -> None:
    label = {"error": "Errors", "info": "Notes", "clean": "Clean"}[severity]
    owners = {facts.path.with_suffix(".txt"): facts.path for facts in report.images}
    found: dict[str, set[str]] = {facts.path.name: set() for facts in report.images}
    for finding in report.findings:
        if finding.path != report.folder:
            found[owners.get(finding.path, finding.path).name].add(finding.severity)
    expected = {name for name, has in found.items() if (severity in has if severity != "clean" else not has)}
    assert expected
    tab.get_by_label(re.compile(rf"^{label} \d")).check()
    assert set(shown(tab)) == expected
    assert tab.locator("#count").inner_text() == f"{len(expected)} of 9 shown"
    assert tab.locator(f".choice:has(input[value={severity}])").inner_text() == f"{label} {len(expected)}"


def test_the_code_filter_and_the_way_back(tab: Any) -> None:
    tab.get_by_label("Finding").select_option("image.too-small")
    assert shown(tab) == ["demo-03.png"]
    tab.get_by_label(re.compile(r"^Clean")).check()
    assert shown(tab) == []
    tab.get_by_role("button", name="Clear them").click()
    tab.wait_for_function("document.getElementById('count').textContent === '9 of 9 shown'")
    assert len(shown(tab)) == 9


@pytest.mark.parametrize(
    ("text", "found"), [("GUITAR", "demo-02.png"), ("small 64", "demo-03.png"), ("demo-07", "demo-07.png")]
)
def test_search_looks_into_captions_findings_and_names(tab: Any, text: str, found: str) -> None:
    tab.get_by_label("Search").fill(text)
    assert shown(tab) == [found]


def test_the_frame_lies_where_the_crop_is(tab: Any) -> None:
    # 60 x 120: too small for 64, cropped at 32.
    card = tab.locator(".card", has=tab.locator("h3", has_text="demo-03.png"))
    frame, image = card.locator(".crop").bounding_box(), card.locator(".photo > img").bounding_box()
    assert card.locator(".crop").count() == 1
    assert card.locator(".crop b").inner_text() == "32"
    assert frame["width"] == pytest.approx(image["width"], abs=2)
    assert frame["height"] == pytest.approx(image["height"] / 2, abs=3)
    assert frame["y"] - image["y"] == pytest.approx(image["height"] / 4, abs=3)


def test_frames_of_one_resolution_or_none(tab: Any) -> None:
    tab.get_by_label("Crop").select_option("64")
    assert tab.locator(".crop:visible").count() == 8, "all but the photo that is too small for 64"
    tab.get_by_label("Crop").select_option("none")
    assert tab.locator(".crop:visible").count() == 0
    tab.get_by_label("Crop").select_option("all")
    assert tab.locator(".crop:visible").count() == 9


def test_a_turned_photo_is_shown_upright_and_as_it_is_trained(tab: Any) -> None:
    card = tab.locator(".card", has=tab.locator("h3", has_text="demo-04.png"))
    assert card.locator(".tag").inner_text() == "trained turned"
    box = card.locator(".photo > img").bounding_box()
    assert box["height"] > box["width"], "128 x 64 as stored, turned by its EXIF"
    assert "as trained" in card.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(tab: Any, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    low = tab.evaluate(CONTRAST)
    assert low == [], "WCAG AA wants 4.5 : 1"


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_nothing_sticks_out_at_the_side(tab: Any, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_filters_work_from_the_keyboard(tab: Any) -> None:
    tab.locator("input[name=severity][value=all]").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("input[name=severity][value=error]").is_checked()
    assert 0 < len(shown(tab)) < 9


def test_a_thousand_photos_still_filter_at_once(browser: Any, tmp_path: Path) -> None:
    chance = random.Random(4)
    photos = tmp_path / "photos"
    photos.mkdir()
    images = []
    for number in range(1000):
        path = photos / f"{number:04d}.jpg"
        Image.new("RGB", (96, 96), (chance.randrange(256), number % 256, 90)).save(path)
        images.append(path)
    rules = DatasetRules(trigger="behitek", resolutions=(64, 32), captions="trigger", release="4.8.0", steps=100)
    report = check_dataset(photos, rules)
    some = tuple(Finding("image.test", "warning", path, "Made up.", "None.") for path in images[::10])
    # Plain colours look blurred and alike: their own findings would be on every photo.
    report = DatasetReport(report.folder, some, report.images)
    page = tmp_path / "page.html"
    assert write_page(page, report, preview_training(report.images, rules)) < 20e6
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.goto(page.as_uri())
    assert opened.locator("#count").inner_text() == "1000 of 1000 shown"
    opened.get_by_label(re.compile(r"^Warnings 100$")).check()
    assert opened.locator("#count").inner_text() == "100 of 1000 shown"
    context.close()


# Every text node's colour against the first opaque background behind it; below 4.5 it is returned.
CONTRAST = """
() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0.7) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || element.matches("script, option, .unseen, .crop *")) continue;
    const [one, two] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.className, walk.currentNode.textContent.slice(0, 40), ratio]);
  }
  return low;
}
"""
