"""The real uv against a package index on this machine that knows when each file was uploaded."""

import json
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fluxkit.errors import InstallError
from fluxkit.files import sha256_file
from fluxkit.trainer.resolve import UnreachableIndexError, UnsatisfiableError, resolve_requirements

UPLOADS = {
    ("tuner", "1.0", "needle>=1"): "2025-03-01",
    ("needle", "1.0", ""): "2025-01-01",
    ("needle", "1.5", ""): "2025-03-02",
    ("needle", "2.0", ""): "2025-06-01",
}


class _Index(SimpleHTTPRequestHandler):
    extensions_map = {"": "application/octet-stream", ".html": "application/vnd.pypi.simple.v1+json"}  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        pass


def _wheel(folder: Path, name: str, version: str, needs: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", metadata + (f"Requires-Dist: {needs}\n" if needs else ""))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("index")
    files: dict[str, list[object]] = {}
    for (name, version, needs), day in UPLOADS.items():
        wheel = _wheel(root, name, version, needs)
        hashes = {"sha256": sha256_file(wheel)}
        entry = {"filename": wheel.name, "url": f"/{wheel.name}", "hashes": hashes, "upload-time": f"{day}T12:00:00Z"}
        files.setdefault(name, []).append(entry)
    for name, entries in files.items():
        (root / name).mkdir()
        page = {"meta": {"api-version": "1.1"}, "name": name, "files": entries, "versions": []}
        (root / name / "index.html").write_text(json.dumps(page))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Index, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _index(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", address)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)


def _pins(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if "==" in line]


@pytest.mark.parametrize(("as_of", "needle"), [("2025-03-01", "1.0"), ("2025-03-02", "1.5"), ("2025-12-31", "2.0")])
def test_the_index_is_seen_as_of_the_day_included(as_of: str, needle: str) -> None:
    text = resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of=as_of)
    assert _pins(text) == [f"needle=={needle}", "tuner==1.0"]
    assert text.count("--hash=sha256:") == 2


def test_nothing_of_the_index_address_is_in_the_lock(address: str) -> None:
    text = resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of="2025-12-31")
    assert "://" not in text
    assert address not in text


def test_constraints_hold_and_overrides_replace() -> None:
    held = resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of="2025-12-31", constraints=["needle<2"])
    assert _pins(held) == ["needle==1.5", "tuner==1.0"]
    forced = resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of="2025-12-31", overrides=["needle==1.0"])
    assert _pins(forced) == ["needle==1.0", "tuner==1.0"]


@pytest.mark.parametrize("requirement", ["tuner==9", "nobody==1", "tuner==1.0"])
def test_what_no_set_of_packages_satisfies(requirement: str) -> None:
    with pytest.raises(UnsatisfiableError, match="2025-01-01"):
        resolve_requirements(requirement, python=">=3.12,<3.14", as_of="2025-01-01")


def test_no_network_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/")
    with pytest.raises(UnreachableIndexError, match="can't be reached") as error:
        resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of="2025-12-31")
    assert "network" in error.value.fix


def test_offline_is_no_network_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(UnreachableIndexError):
        resolve_requirements("tuner==1.0", python=">=3.12,<3.14", as_of="2025-12-31")


def test_a_requirement_that_is_none_shows_what_uv_says() -> None:
    with pytest.raises(InstallError, match="expected version") as error:
        resolve_requirements("tuner==x", python=">=3.12,<3.14", as_of="2025-12-31")
    assert type(error.value) is InstallError
