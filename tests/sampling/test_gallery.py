"""The page without a browser, the picks, and the server that saves them."""

import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxkit.commands.gallery import gallery as gallery_command
from fluxkit.commands.gallery import pick as export_picks
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.sampling.gallery import refresh_gallery
from fluxkit.sampling.picks import read_picks, set_pick
from fluxkit.sampling.server import address
from fluxkit.sampling.writer import read_parameters
from tests.sampling.pictures import HOSTILE, make_folder, serving

QUIET = Output(verbosity=-1)


def data_of(page: Path) -> Any:
    text = page.read_text(encoding="utf-8")
    assert "onerror" not in text.split('id="data">')[0]
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_holds_every_picture_and_needs_nothing_else(tmp_path: Path) -> None:
    jobs = make_folder(tmp_path)
    page = refresh_gallery(tmp_path)
    data = data_of(page)
    assert {image["key"] for image in data["images"]} == jobs.keys()
    assert all(image["thumbnail"].startswith("data:image/webp;base64,") for image in data["images"])
    assert set(data["prompts"]) == {"ohwx man", HOSTILE}
    assert data["axes"] == ["prompt", "seed", "checkpoint"]
    assert not re.search(r"https?://(?!www\.w3\.org)", page.read_text())
    first = [image for image in data["images"] if (image["name"], image["seed"]) == ("portrait", 1)]
    assert [image["checkpoint"] for image in first] == ["checkpoint-500", "checkpoint-1000", "final"], "side by side"


def test_thumbnails_are_made_once_and_follow_the_picture(tmp_path: Path) -> None:
    make_folder(tmp_path, seeds=(1,), prompts={"p": "x"}, adapters=("final",))
    before = data_of(refresh_gallery(tmp_path))["images"][0]["thumbnail"]
    (kept,) = (tmp_path / ".thumbs").iterdir()
    kept.write_bytes(b"mark")
    assert data_of(refresh_gallery(tmp_path))["images"][0]["thumbnail"].endswith("bWFyaw==")
    kept.unlink()
    assert data_of(refresh_gallery(tmp_path))["images"][0]["thumbnail"] == before


def test_folders_of_the_first_version_are_shown(tmp_path: Path) -> None:
    make_folder(tmp_path, seeds=(1,), adapters=("final",))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for entry in manifest["images"].values():
        for name in ("adapter", "adapters", "wrapped"):
            del entry[name]
        entry["adapter_sha256"] = "ab" * 32
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert {image["checkpoint"] for image in data_of(refresh_gallery(tmp_path))["images"]} == {"adapter abababab"}


class Client:
    """A browser's requests, each part of which a test can forge."""

    def __init__(self, server: Any) -> None:
        self.port = server.server_port
        self.path = address(server).split(str(self.port), 1)[1]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        result = answer.status, answer.read(), dict(answer.headers)
        connection.close()
        return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "images")
    refresh_gallery(tmp_path / "images")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "images" / "notes.txt").write_text("secret")
    return tmp_path / "images"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with serving(folder) as server:
        yield Client(server)


def test_the_server_gives_page_and_pictures(client: Client, folder: Path) -> None:
    status, page, headers = client.ask("GET", client.path)
    assert status == 200
    assert b'id="live">{"picks": {}}<' in page
    assert headers["Cache-Control"] == "no-store"
    picture = next(folder.glob("portrait-*.png"))
    assert client.ask("GET", client.path + picture.name)[:2] == (200, picture.read_bytes())


@pytest.mark.parametrize(
    "path",
    ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "notes.txt", "manifest.json", ".lock", "", "/etc/passwd"],
)
def test_nothing_but_the_folders_images_is_given(client: Client, path: str) -> None:
    status, body, _ = client.ask("GET", client.path + path if path else client.path[:-1])
    assert status in (403, 404)
    assert b"secret" not in body


@pytest.mark.parametrize("path", ["/", "/index.html", "/wrong/", "/picks"])
def test_without_the_token_there_is_nothing(client: Client, path: str) -> None:
    assert client.ask("GET", path)[0] == 403
    assert client.ask("POST", path, {"key": "x", "pick": "keep"})[0] == 403


def test_a_rebound_name_is_refused(client: Client, folder: Path) -> None:
    """DNS rebinding: the attacker's name resolves to 127.0.0.1, and the browser says it in Host."""
    key = next(iter(json.loads((folder / "manifest.json").read_text())["images"]))
    for host in (f"evil.example:{client.port}", "127.0.0.1", f"127.0.0.1:{client.port + 1}"):
        assert client.ask("GET", client.path, Host=host)[0] == 421
        assert client.ask("POST", client.path + "picks", {"key": key, "pick": "keep"}, Host=host)[0] == 421
    assert read_picks(folder) == {}


def test_picks_are_saved_and_taken_back(client: Client, folder: Path) -> None:
    keys = list(json.loads((folder / "manifest.json").read_text())["images"])
    for key, value in ((keys[0], "keep"), (keys[1], "reject"), (keys[2], "keep"), (keys[2], None)):
        assert client.ask("POST", client.path + "picks", {"key": key, "pick": value})[0] == 204
    assert read_picks(folder) == {keys[0]: "keep", keys[1]: "reject"}
    assert f'"{keys[0]}": "keep"'.encode() in client.ask("GET", client.path)[1]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"key": "stranger", "pick": "keep"}, {}),
        ({"key": None, "pick": "love"}, {}),
        ({"key": None}, {}),
        ([], {}),
        ({"key": None, "pick": "keep"}, {"Content_Type": "text/plain"}),
        ({"key": None, "pick": "keep"}, {"Origin": "https://evil.example"}),
        ({"key": None, "pick": "keep", "more": "x" * 5000}, {}),
    ],
    ids=["stranger", "no pick", "half", "no object", "a form's type", "another origin", "too long"],
)
def test_what_is_no_pick_changes_nothing(client: Client, folder: Path, body: Any, headers: dict[str, str]) -> None:
    key = next(iter(json.loads((folder / "manifest.json").read_text())["images"]))
    if isinstance(body, dict) and body["key"] is None:
        body = {**body, "key": key}
    assert client.ask("POST", client.path + "picks", body, **headers)[0] == 400
    assert not (folder / "picks.json").exists()


def test_many_picks_at_once_are_all_saved(client: Client, folder: Path) -> None:
    keys = list(json.loads((folder / "manifest.json").read_text())["images"])
    threads = [
        threading.Thread(target=client.ask, args=("POST", client.path + "picks", {"key": key, "pick": "keep"}))
        for key in keys
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_picks(folder) == dict.fromkeys(keys, "keep")


def test_the_command_serves_what_it_opens_and_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = threading.Event()
    monkeypatch.setenv("DISPLAY", ":1")
    monkeypatch.setattr("webbrowser.open", lambda url: (addresses.append(url), opened.set()))
    addresses: list[str] = []

    def once(server: Any) -> None:
        assert opened.wait(60)
        server.handle_request()
        raise KeyboardInterrupt

    monkeypatch.setattr("http.server.ThreadingHTTPServer.serve_forever", once)
    answers: list[int] = []

    def visit() -> None:
        opened.wait(60)
        port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.+/)", addresses[0]).groups()  # type: ignore[union-attr]
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        connection.request("GET", path)
        answers.append(connection.getresponse().status)
        connection.close()

    visitor = threading.Thread(target=visit)
    visitor.start()
    gallery_command(None, folder=folder, no_open=False, port=0, out=Output(verbosity=-1))
    visitor.join()
    assert answers == [200]
    assert capsys.readouterr().out.strip() == addresses[0]


def test_damaged_picks_are_said_in_the_browser(client: Client, folder: Path) -> None:
    (folder / "picks.json").write_text("{")
    status, body, _ = client.ask("GET", client.path)
    assert status == 500
    assert b"picks.json" in body


def export(folder: Path, target: Path, *, picks: Path | None = None, metadata: bool = True) -> list[Path]:
    return export_picks(None, folder=folder, export=target, picks=picks, metadata=metadata, out=QUIET)


def test_the_kept_ones_are_copied_as_they_are(folder: Path, tmp_path: Path) -> None:
    images = json.loads((folder / "manifest.json").read_text())["images"]
    keys = list(images)
    set_pick(folder, keys[0], "keep")
    set_pick(folder, keys[1], "reject")
    set_pick(folder, keys[3], "keep")
    copies = export(folder, tmp_path / "picks")
    assert [path.name for path in copies] == [images[keys[0]]["file"], images[keys[3]]["file"]]
    assert all(path.read_bytes() == (folder / path.name).read_bytes() for path in copies)
    for path in export(folder, tmp_path / "bare", metadata=False):
        assert read_parameters(path) is None


def test_downloaded_picks_count_too(folder: Path, tmp_path: Path) -> None:
    key = next(iter(json.loads((folder / "manifest.json").read_text())["images"]))
    (tmp_path / "picks.json").write_text(json.dumps({"format": 1, "picks": {key: "keep", "stranger": "keep"}}))
    assert len(export(folder, tmp_path / "out", picks=tmp_path / "picks.json")) == 1


def test_nothing_kept_and_damaged_picks_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kept"):
        export(folder, tmp_path / "out")
    (folder / "picks.json").write_text("{")
    with pytest.raises(UserError, match=r"picks\.json"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
