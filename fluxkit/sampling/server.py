"""The gallery on loopback, so that picks can be saved.

A page of the web must reach nothing here, though the browser can: every path begins with a random token that only the
opened address holds (no CSRF), the Host header must be this server's (no DNS rebinding), and a write must be JSON and,
where the browser says, of the same origin.
"""

import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from fluxkit.errors import UserError
from fluxkit.sampling.gallery import GALLERY
from fluxkit.sampling.ledger import read_entries
from fluxkit.sampling.picks import read_picks, set_pick

_LARGEST_BODY = 4096
_TYPES = {".png": "image/png", ".webp": "image/webp", ".jpeg": "image/jpeg"}
_NO_LIVE = '<script type="application/json" id="live">null</script>'


def gallery_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for one folder's gallery; the caller runs it, and closes it.

    Args:
        folder: of images, with its `index.html`.
        port: on 127.0.0.1; 0 lets the system choose.

    Raises:
        UserError: the port is taken.
    """
    handler = type("Handler", (_Handler,), {"folder": folder, "token": secrets.token_urlsafe(24)})
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(
            f"Port {port} can't be used: {error.strerror}.", fix="Leave --port out, or give another one."
        ) from error


def address(server: ThreadingHTTPServer) -> str:
    """What to open, token included."""
    token: str = server.RequestHandlerClass.token  # type: ignore[attr-defined]
    return f"http://127.0.0.1:{server.server_port}/{token}/"


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a picture is nothing to speak of."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    folder: ClassVar[Path]
    token: ClassVar[str]
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fluxkit", ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, or one of the ledger's images; nothing else of the folder."""
        name = self._allowed()
        if name is None:
            return
        if name == "":
            self._page()
            return
        path = self.folder / name
        known = name in {str(entry["file"]) for entry in read_entries(self.folder).values()}
        grid = name.startswith("grid-") and name.endswith(".png")
        if "/" in name or "\\" in name or not (known or grid) or not path.is_file():
            self._answer(HTTPStatus.NOT_FOUND)
            return
        self._answer(HTTPStatus.OK, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))

    def _page(self) -> None:
        try:
            picks = read_picks(self.folder)
        except UserError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{error.message} {error.fix}".encode())
            return
        page = (self.folder / GALLERY).read_text(encoding="utf-8")
        live = _NO_LIVE.replace("null", json.dumps({"picks": picks}).replace("<", "\\u003c"))
        self._answer(HTTPStatus.OK, page.replace(_NO_LIVE, live, 1).encode("utf-8"), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        """One pick: `{"key": …, "pick": "keep" | "reject" | null}`."""
        name = self._allowed()
        if name is None:
            return
        origin = self.headers.get("Origin")
        host = self.headers.get("Host", "")
        length = self.headers.get("Content-Length", "")
        if (
            name != "picks"
            or self.headers.get_content_type() != "application/json"
            or (origin is not None and origin != f"http://{host}")
            or not (length.isascii() and length.isdigit())
            or int(length) > _LARGEST_BODY
        ):
            self.close_connection = True  # the body is left unread
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            key, pick = body["key"], body["pick"]
            if pick not in ("keep", "reject", None) or key not in read_entries(self.folder):
                raise ValueError(f"{pick} of {key}")
        except (ValueError, KeyError, TypeError):
            self._answer(HTTPStatus.BAD_REQUEST)
            return
        try:
            set_pick(self.folder, key, pick)
        except UserError as error:
            self._answer(HTTPStatus.INSUFFICIENT_STORAGE, error.message.encode("utf-8"))
            return
        self._answer(HTTPStatus.NO_CONTENT)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing: the terminal belongs to the address."""

    def _allowed(self) -> str | None:
        """What is asked for, after the token; None where nothing may be, and that is answered."""
        port = self.server.server_port  # type: ignore[attr-defined]  # an HTTPServer has it
        path = unquote(urlsplit(self.path).path)
        prefix = f"/{self.token}/"
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self.close_connection = True
            self._answer(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        if not secrets.compare_digest(path[: len(prefix)].encode(), prefix.encode()):
            self.close_connection = True
            self._answer(HTTPStatus.FORBIDDEN)
            return None
        return path[len(prefix) :]

    def _answer(self, status: HTTPStatus, body: bytes = b"", kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(body)
