"""A loopback address that the trainer's webhooks are sent to.

The trainer waits for each answer (to 2.2.1 without a limit), so a request is answered before it is understood. Nothing
that arrives can harm a run: what is too big, too slow or not understood is dropped. Validation images come in these
requests and go no further: they are parsed over and forgotten.
"""

import contextlib
import json
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fluxkit.files import write_json
from fluxkit.trainer.events import Event
from fluxkit.trainer.webhook import parse_webhook

LOOPBACK = "127.0.0.1"
MOST_BYTES = 64 * 2**20  # a payload with several validation images has a few MB each
MOST_WAITING = 256  # payloads; beyond that the oldest news are not worth the memory
PARSE_SECONDS = 0.5  # that whoever asks for the events waits for those which came and aren't understood yet
CLIENT_SECONDS = 10.0  # after which a client that doesn't send what it announced is let go
CONFIG_FILE = "webhook.json"


class Listener:
    """Takes what the trainer posts, and has the events ready in their order.

    Raises:
        OSError: no port of the loopback interface can be had.
    """

    def __init__(self) -> None:
        self._bodies: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        # Others on this machine can reach the port; the path is known to the trainer alone.
        self._path = f"/{secrets.token_urlsafe(16)}"
        self._server = _Server((LOOPBACK, 0), _handler(self._path, self._take))
        self._threads = [
            threading.Thread(target=work, daemon=True, name="fluxkit-webhooks")
            for work in (lambda: self._server.serve_forever(0.05), self._parse)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def url(self) -> str:
        """The address for the trainer."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}{self._path}"

    def write_config(self, folder: Path) -> Path:
        """Write the webhook config, as a file: the one form that every release takes."""
        path = folder / CONFIG_FILE
        write_json(path, {"webhook_type": "raw", "callback_url": self.url, "log_level": "info"})
        return path

    def drain(self) -> Iterator[Event]:
        """The events since the last call, those of every answered request among them.

        The trainer tells of a step, is answered, and prints the step: who reads the line finds the event here.
        """
        parsed = self._bodies.all_tasks_done
        with parsed:
            parsed.wait_for(lambda: not self._bodies.unfinished_tasks, PARSE_SECONDS)
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._events.get_nowait()

    def close(self) -> None:
        """Stop listening; what came so far can still be drained."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(queue.Full):
            self._bodies.put(None, timeout=1)
        for thread in self._threads:
            thread.join(5)

    def _take(self, body: bytes) -> None:
        with contextlib.suppress(queue.Full):
            self._bodies.put_nowait(body)

    def _parse(self) -> None:
        while (body := self._bodies.get()) is not None:
            # RecursionError: `[[[[…`. Whatever a payload does, the next one is read.
            with contextlib.suppress(Exception):
                for event in parse_webhook(json.loads(body)):
                    self._events.put(event)
            self._bodies.task_done()
        self._bodies.task_done()


@contextlib.contextmanager
def listening() -> Iterator[Listener | None]:
    """A listener, or None where none can be had: then the trainer's output has to do."""
    try:
        listener = Listener()
    except OSError:
        yield None
        return
    try:
        yield listener
    finally:
        listener.close()


def around_proxies(env: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep requests to the loopback address, and the images in them, from going to a proxy."""
    names = ("NO_PROXY", "no_proxy")
    # Both are set to the same: programs look at one of them and then no further.
    hosts = [host.strip() for name in names for host in env.get(name, "").split(",") if host.strip()]
    # `*`, for every host, is understood only when it stands alone.
    value = "*" if "*" in hosts else ",".join(dict.fromkeys((*hosts, LOOPBACK, "localhost")))
    return dict.fromkeys(names, value)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that hangs must not keep fluxkit from ending

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is no error of the run."""


def _handler(path: str, take: Any) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_POST(self) -> None:
            self.close_connection = True
            if self.path != path:
                self._answer(404)
                return
            announced = self.headers.get("Content-Length", "")
            if not (announced.isascii() and announced.isdigit()):
                self._answer(411)
                return
            if int(announced) > MOST_BYTES:
                self._answer(413)
                return
            body = self.rfile.read(int(announced))
            if len(body) == int(announced):
                take(body)
            self._answer(204)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
