import http.client
import json
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fluxkit.trainer import listener as module
from fluxkit.trainer.events import Event, Saved
from fluxkit.trainer.listener import Listener, around_proxies, listening
from fluxkit.trainer.webhook import parse_webhook
from tests.commands.trainers import wait_until

SAVED = {"type": "training.checkpoint", "checkpoint": {"path": "/x/checkpoint-8"}}


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        assert found is not None
        yield found


def post(listener: Listener, body: bytes, path: str | None = None, headers: dict[str, str] | None = None) -> int:
    """Post as the trainer does; the status."""
    where = urlsplit(listener.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    try:
        connection.request("POST", path or where.path, body, headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def raw(listener: Listener, *parts: bytes) -> bytes:
    """Send bytes that no HTTP library would send; what came back."""
    where = urlsplit(listener.url)
    with socket.create_connection((where.hostname, where.port), timeout=60) as client:
        for part in parts:
            client.sendall(part)
        return client.recv(4096)


def arrived(listener: Listener) -> list[Event]:
    """The next events: on a busy machine a large payload is understood a while after it was answered."""
    found: list[Event] = []
    wait_until(lambda: found.extend(listener.drain()) or found, "an event")
    return found


def test_events_arrive_in_their_order(listener: Listener) -> None:
    for step in range(1, 30):
        assert post(listener, json.dumps({**SAVED, "checkpoint": {"path": f"checkpoint-{step}"}}).encode()) == 204
    found: list[Event] = []
    while len(found) < 29:
        found += arrived(listener)
    assert found == [Saved(step) for step in range(1, 30)]


def test_what_was_answered_is_there_when_it_is_asked_for(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's line is printed after its webhook was answered; taken in before it, it would be the only loss known."""

    def slowly(payload: object) -> Iterable[Event]:
        pause.wait(0.3)
        return parse_webhook(payload)

    pause = threading.Event()
    monkeypatch.setattr(module, "parse_webhook", slowly)
    monkeypatch.setattr(module, "PARSE_SECONDS", 60.0, raising=False)
    assert post(listener, json.dumps(SAVED).encode()) == 204
    assert list(listener.drain()) == [Saved(8)]


def test_a_payload_that_takes_forever_holds_nobody_up(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(module, "parse_webhook", lambda _: [] if release.wait(60) else [Saved(8)])
    monkeypatch.setattr(module, "PARSE_SECONDS", 0.1)
    try:
        assert post(listener, b"{}") == 204
        assert list(listener.drain()) == []
    finally:
        release.set()


def test_it_is_reached_on_the_loopback_interface_only(listener: Listener, tmp_path: Path) -> None:
    document = json.loads(listener.write_config(tmp_path).read_text())
    assert document == {"webhook_type": "raw", "callback_url": listener.url, "log_level": "info"}
    assert listener.url.startswith("http://127.0.0.1:")
    own = [address[4][0] for address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    for address in {str(address) for address in own if not str(address).startswith("127.")}:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, urlsplit(listener.url).port), timeout=60)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\xff garbage", b"{", b"[" * 100_000, b'{"type": NaN}', b"null", json.dumps({"type": "x"}).encode()],
)
def test_garbage_is_answered_and_dropped(listener: Listener, body: bytes) -> None:
    assert post(listener, body) == 204
    assert post(listener, json.dumps(SAVED).encode()) == 204
    assert arrived(listener) == [Saved(8)]


def test_a_huge_body_is_refused_unread(listener: Listener) -> None:
    assert post(listener, b"", headers={"Content-Length": str(10**12)}) == 413
    assert post(listener, json.dumps(SAVED).encode()) == 204


def test_a_body_with_images_is_taken(listener: Listener) -> None:
    images = ["iVBOR" * 400_000] * 4
    assert post(listener, json.dumps({**SAVED, "images": images}).encode()) == 204
    assert arrived(listener) == [Saved(8)]


@pytest.mark.parametrize(
    "request_",
    [
        b"POST %s HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: ²\r\n\r\n".encode("latin-1"),
    ],
)
def test_no_usable_length_is_an_answer_too(listener: Listener, request_: bytes) -> None:
    assert b" 411 " in raw(listener, request_.replace(b"%s", urlsplit(listener.url).path.encode()))


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_post_harms_nothing(listener: Listener, request_: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    raw(listener, request_)
    assert post(listener, json.dumps(SAVED).encode()) == 204
    assert arrived(listener) == [Saved(8)]
    assert capsys.readouterr() == ("", "")


def test_nobody_else_can_tell_it_things(listener: Listener) -> None:
    assert post(listener, json.dumps(SAVED).encode(), path="/cb") == 404
    assert list(listener.drain()) == []


def test_a_slow_client_keeps_nobody_waiting(listener: Listener, capsys: pytest.CaptureFixture[str]) -> None:
    where = urlsplit(listener.url)
    with socket.create_connection((where.hostname, where.port), timeout=60) as slow:
        slow.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" % where.path.encode())
        assert post(listener, json.dumps(SAVED).encode()) == 204
        assert arrived(listener) == [Saved(8)]
    assert capsys.readouterr() == ("", "")


def test_a_client_that_never_sends_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENT_SECONDS", 0.2)
    with listening() as listener:
        assert listener is not None
        where = urlsplit(listener.url)
        with socket.create_connection((where.hostname, where.port), timeout=60) as silent:
            silent.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" % where.path.encode())
            assert silent.recv(100) == b""  # closed by the other side


def test_an_answer_does_not_wait_for_what_the_payload_means(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def stuck(_: object) -> tuple[()]:
        release.wait(10)
        return ()

    monkeypatch.setattr(module, "parse_webhook", stuck)
    try:
        # More than it keeps waiting: the rest is dropped, and answered all the same.
        assert [post(listener, b"{}") for _ in range(module.MOST_WAITING + 5)] == [204] * (module.MOST_WAITING + 5)
    finally:
        release.set()


def test_without_a_port_there_is_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(module, "_Server", refuse)
    with listening() as listener:
        assert listener is None


def test_closing_ends_it_whatever_hangs(listener: Listener) -> None:
    where = urlsplit(listener.url)
    with socket.create_connection((where.hostname, where.port), timeout=60) as hanging:
        hanging.sendall(b"POST")
        listener.close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((where.hostname, where.port), timeout=60)


def test_a_proxy_never_sees_the_images(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    for name, value in around_proxies(os.environ).items():
        assert value.endswith("127.0.0.1,localhost")
        monkeypatch.setenv(name, value)
    assert os.environ["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
    # urllib and requests decide by the same variables, in the same way.
    request = urllib.request.Request(listener.url, json.dumps(SAVED).encode(), method="POST")  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        assert answer.status == 204
    assert arrived(listener) == [Saved(8)]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a.example", "no_proxy": "b.example, a.example"}, "a.example,b.example,127.0.0.1,localhost"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_the_user_keeps_from_the_proxy_stays_so(env: dict[str, str], expected: str) -> None:
    assert around_proxies(env) == {"NO_PROXY": expected, "no_proxy": expected}
