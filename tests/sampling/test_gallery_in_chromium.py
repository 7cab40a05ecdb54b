"""The gallery as a browser runs it: what is drawn, what the keys do, where the picks go; with a thousand images too."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkit.sampling.gallery import refresh_gallery
from fluxkit.sampling.picks import read_picks, set_pick
from fluxkit.sampling.server import address
from tests.chromium import browser, in_chromium
from tests.sampling.pictures import make_folder, serving

__all__ = ["browser"]  # a fixture


pytestmark = in_chromium
Open = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images: two prompts, one of them hostile, two seeds, three checkpoints."""
    make_folder(tmp_path / "images")
    refresh_gallery(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(url: str, *, width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.urls = []
        tab.on("request", lambda request: tab.urls.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda message: errors.append(message.text) if _bad(message) else None)
        tab.goto(url)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    with serving(folder) as server:
        yield address(server)


def _bad(message: Any) -> bool:
    return message.type == "error" and "ERR_FILE_NOT_FOUND" not in message.text  # a page that was sent alone


def page_of(folder: Path) -> str:
    return (folder / "index.html").as_uri()


def until(tab: Any, condition: str) -> None:
    """Wait for JavaScript to be true. Playwright's own waiting is eval in the page, which the page forbids."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def focused(tab: Any) -> str:
    return str(tab.evaluate("document.activeElement.getAttribute('aria-label')"))


def shows(tab: Any, status: str) -> None:
    """Wait until the line of counts ends so: what a key does may take a moment on a busy machine."""
    until(tab, f"document.querySelector('#count').innerText.endsWith({json.dumps(status)})")


def test_every_image_is_drawn_and_nothing_is_asked_of_the_network(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    until(tab, "[...document.querySelectorAll('.card img')].slice(0, 4).every((one) => one.naturalWidth)")
    assert tab.locator(".card").count() == 12
    shows(tab, "12 of 12 shown · 0 kept · 0 rejected")
    assert [url for url in tab.urls if not url.startswith("data:")] == [page_of(folder)]


def test_a_hostile_prompt_stays_text(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.locator(".card").nth(0).click()
    assert "owned" not in tab.title()
    assert tab.locator("main img[src='x']").count() == 0
    assert '</script><img src=x onerror="document' in tab.locator(".prompt").nth(0).text_content()


def test_filters_combine(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.select_option("select[name=checkpoint]", label="final")
    assert tab.locator(".card:visible").count() == 4
    tab.select_option("select[name=seed]", label="seed 2")
    tab.select_option("select[name=prompt]", label="portrait")
    assert tab.locator(".card:visible").count() == 1
    assert "portrait, seed 2, final" in tab.locator(".card:visible").get_attribute("aria-label")
    assert tab.locator("section:visible").count() == 1
    tab.select_option("select[name=pick]", "keep")
    assert tab.locator(".card:visible").count() == 0


def test_the_keyboard_alone_is_enough(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.locator("#help").focus()
    tab.keyboard.press("Tab")
    first = focused(tab)
    assert "checkpoint-500" in first
    tab.keyboard.press("k")
    tab.keyboard.press("ArrowRight")
    assert "checkpoint-1000" in focused(tab)
    tab.keyboard.press("x")
    shows(tab, "12 of 12 shown · 1 kept · 1 rejected")
    assert focused(tab).endswith("rejected"), "a screen reader hears it too"
    tab.keyboard.press("u")
    shows(tab, "1 kept · 0 rejected")
    tab.keyboard.press("ArrowLeft")
    assert focused(tab) == first.replace("undecided", "kept")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowUp")
    assert focused(tab) == first.replace("undecided", "kept")


def test_full_view_goes_on_and_picks(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.locator(".card").nth(0).focus()
    tab.keyboard.press("Enter")
    until(tab, "document.querySelector('#view img').naturalWidth === 64")
    tab.keyboard.press("ArrowRight")
    assert "checkpoint-1000" in tab.locator("#view figcaption").inner_text()
    tab.keyboard.press("k")
    assert tab.locator("#view figcaption").inner_text().endswith("kept")
    tab.locator("#view [data-do=reject]").click()
    assert tab.locator("#view figcaption").inner_text().endswith("rejected")
    tab.keyboard.press("Escape")
    assert not tab.locator("#view").is_visible()
    # The browser says that the dialog is closed a moment after it is.
    until(tab, "document.activeElement.getAttribute('aria-label').includes('checkpoint-1000')")


def test_two_are_compared_side_by_side(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.locator(".card").nth(0).focus()
    tab.keyboard.press("c")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("c")
    left, right = (box.bounding_box() for box in tab.locator("#compare img").all())
    assert left["x"] + left["width"] <= right["x"]
    assert left["y"] == right["y"]
    tab.locator("#compare [data-do=keep-right]").click()
    shows(tab, "1 kept · 1 rejected")
    assert tab.locator(".card").nth(1).get_attribute("data-pick") == "keep"


def test_a_page_sent_alone_still_shows_something(open_page: Open, folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.html"
    (folder / "index.html").rename(alone)
    for picture in folder.glob("*.png"):
        picture.unlink()
    tab = open_page(alone.as_uri())
    tab.locator(".card").nth(0).focus()
    tab.keyboard.press("Enter")
    until(tab, "document.querySelector('#view img').src.startsWith('data:image/webp')")


def test_picks_of_a_file_stay_in_the_browser_and_can_be_downloaded(open_page: Open, folder: Path) -> None:
    tab = open_page(page_of(folder))
    tab.locator(".card").nth(0).focus()
    tab.keyboard.press("k")
    shows(tab, "12 of 12 shown · 1 kept · 0 rejected")
    for _ in range(50):  # what a page stores reaches the browser a moment later
        tab.reload()
        if "1 kept" in tab.locator("#count").inner_text():
            break
        tab.wait_for_timeout(100)
    shows(tab, "12 of 12 shown · 1 kept · 0 rejected")
    with tab.expect_download() as download:
        tab.locator("#download").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert download.value.suggested_filename == "picks.json"
    assert list(saved["picks"].values()) == ["keep"]
    assert not (folder / "picks.json").exists()


def test_picks_of_a_served_page_are_saved(open_page: Open, folder: Path, served: str) -> None:
    keys = list(json.loads((folder / "manifest.json").read_text())["images"])
    set_pick(folder, keys[5], "reject")
    tab = open_page(served)
    shows(tab, "12 of 12 shown · 0 kept · 1 rejected")
    tab.locator(".card").nth(0).focus()
    with tab.expect_response(re.compile("picks$")) as answer:
        tab.keyboard.press("k")
    assert answer.value.status == 204
    assert sorted(read_picks(folder).values()) == ["keep", "reject"]
    shows(open_page(served), "12 of 12 shown · 1 kept · 1 rejected")  # in another browser too
    tab.keyboard.press("Enter")
    until(tab, "document.querySelector('#view img').naturalWidth === 64")
    assert all(url.startswith((served, "data:")) for url in tab.urls)


def test_a_thousand_images_are_drawn_as_they_come_into_view(open_page: Open, tmp_path: Path) -> None:
    make_folder(tmp_path, seeds=range(250), adapters=("checkpoint-500", "final"), size=(64, 64))
    refresh_gallery(tmp_path)
    tab = open_page(page_of(tmp_path))
    until(tab, "document.querySelector('.card img').naturalWidth")
    drawn = "[...document.querySelectorAll('.card img')].filter((one) => one.src).length"
    assert tab.locator(".card").count() == 1000
    assert 0 < tab.evaluate(drawn) < 300
    tab.locator(".card").last.focus()
    until(tab, "[...document.querySelectorAll('.card img')].at(-1).naturalWidth")
    assert tab.evaluate(drawn) < 600
    tab.select_option("select[name=seed]", label="seed 249")
    assert tab.locator(".card:visible").count() == 4
    until(tab, "[...document.querySelectorAll('li:not([hidden]) img')].every((one) => one.naturalWidth)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(open_page: Open, folder: Path, scheme: str) -> None:
    tab = open_page(page_of(folder), width=360, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.locator(".card").nth(0).click()
    assert tab.locator("#view [data-do=keep]").is_visible()
    tab.locator("#view [data-do=keep]").click()
    shows(tab, "1 kept · 0 rejected")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(open_page: Open, folder: Path, scheme: str) -> None:
    tab = open_page(page_of(folder), scheme=scheme)
    ratio = """(selector) => {
      const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
        const c = part / 255;
        return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
      const one = document.querySelector(selector);
      let behind = one;
      while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
      const pair = [light(parse(getComputedStyle(one).color)), light(parse(getComputedStyle(behind).backgroundColor))];
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }"""
    tab.locator(".card").nth(0).focus()
    tab.keyboard.press("k")
    tab.locator(".card").nth(1).focus()
    tab.keyboard.press("x")
    for selector in (
        "h1",
        ".dim",
        "label",
        "h2",
        ".words",
        "#count",
        "[data-pick=keep] .mark",
        "[data-pick=reject] .mark",
    ):
        assert tab.evaluate(ratio, selector) >= 4.5, selector
