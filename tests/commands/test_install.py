"""`fluxkit install` as a process that is killed, starved and raced: nothing half-done is ever taken for ready."""

import hashlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fluxkit.trainer.environment import MARKER, environment_for
from fluxkit.trainer.lock import Lock
from tests.projects import start_project
from tests.trainer import test_environment as helpers

# The installed command, with a lock of a few lines instead of SimpleTuner's, and a fault at the point named.
CHILD = """
import os, signal, shutil, sys, threading
from dataclasses import replace
from pathlib import Path
project, requirements, fault, python = sys.argv[1:5]
from fluxkit.commands import install as command
from fluxkit.trainer import environment, uv
from fluxkit.trainer.lock import Lock
from fluxkit.trainer.releases import find_release
lock = Lock(replace(find_release("4.8.0"), python=">=3.11"), "cpu", Path(requirements).read_text())
command.resolve = lambda *_: lock

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(module, name, then):
    real = getattr(module, name)
    def wrapped(*a, **k):
        real(*a, **k)
        then(*a, **k)
    setattr(module, name, wrapped)

def half(root, *_, **__):
    for path in root.glob("lib/*/site-packages/simpletuner/*.bin"):
        path.unlink()
    die()

if fault == "kill: venv made":
    after(uv, "make_venv", die)
elif fault == "kill: packages half-installed":
    after(uv, "install_requirements", half)
elif fault == "kill: before the health check":
    environment.check_health = die
elif fault == "kill: before the marker":
    environment.record_packages = die
elif fault == "too little space":
    uv.shutil.disk_usage = lambda _: type("Usage", (), {"free": 1_000_000})
elif fault in ("Ctrl-C", "kill: while uv downloads"):
    number = signal.SIGINT if fault == "Ctrl-C" else signal.SIGKILL
    after(uv, "make_venv", lambda *_: threading.Timer(2, os.kill, (os.getpid(), number)).start())
sys.argv = ["fluxkit", "install", "-C", project, "--python", python, *sys.argv[5:]]
from fluxkit.cli import main
main()
"""
FAULTS = {
    "kill: venv made": (-signal.SIGKILL, ""),
    "kill: while uv downloads": (-signal.SIGKILL, ""),
    "kill: packages half-installed": (-signal.SIGKILL, ""),
    "kill: before the health check": (-signal.SIGKILL, ""),
    "kill: before the marker": (-signal.SIGKILL, ""),
    "full disk": (4, "disk is full"),
    "too little space": (4, "not enough disk space"),
    "no network": (4, "can't be reached"),
    "wrong hash": (4, "hash is wrong"),
    "Ctrl-C": (130, "stopped"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    start_project(root)
    return root


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    made: Lock = helpers.make_lock(tmp_path / "wheels", payload=3_000_000)
    (tmp_path / "requirements.txt").write_text(made.requirements)
    return made


def start(project: Path, requirements: Path, fault: str = "", *more: str, env: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    command = [sys.executable, "-c", CHILD, project, requirements, fault, sys.executable, *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )


def snapshot(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "fluxkit-test", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small filesystem can't be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


@pytest.fixture
def silent() -> Iterator[str]:
    """An index that accepts the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index on the loopback that has the made-up wheel."""
    wheel = "simpletuner-4.8.0-py3-none-any.whl"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f'<a href="/{wheel}">{wheel}</a>'.encode()
            body = (tmp_path / "served" / wheel).read_bytes() if self.path.endswith(".whl") else page
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/html" if body is page else "application/octet-stream")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


def _uvs_of(root: Path) -> list[int]:
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [i for i, words in enumerate(lines) if "uv" in str(words[:1]) and any(str(root) in word for word in words)]


def _fault_env(fault: str, request: pytest.FixtureRequest) -> dict[str, str]:
    if fault == "full disk":
        return {"FLUXKIT_CACHE": str(request.getfixturevalue("small_disk"))}
    if fault == "no network":
        return {"UV_FIND_LINKS": "", "UV_NO_INDEX": "", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    if fault in ("Ctrl-C", "kill: while uv downloads"):
        return {"UV_FIND_LINKS": "", "UV_NO_INDEX": "", "UV_DEFAULT_INDEX": request.getfixturevalue("silent")}
    if fault == "too little space":
        return {"UV_FIND_LINKS": "", "UV_NO_INDEX": "", "UV_DEFAULT_INDEX": request.getfixturevalue("index")}
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_nothing_is_ready_the_project_is_as_it_was_and_the_next_try_succeeds(
    fault: str, tmp_path: Path, project: Path, lock: Lock, request: pytest.FixtureRequest
) -> None:
    before = snapshot(project)
    requirements = tmp_path / "requirements.txt"
    env = {"UV_HTTP_RETRIES": "0", **_fault_env(fault, request)}
    used = requirements
    if fault == "wrong hash":
        used = tmp_path / "wrong.txt"
        used.write_text(f"simpletuner==4.8.0 --hash=sha256:{'0' * 64}\n")
    if fault == "too little space":
        # 2 MB that can't be compressed: uv announces packages of a MiB and more.
        served = helpers.make_lock(tmp_path / "served", payload=0)
        wheel = tmp_path / "served" / "simpletuner-4.8.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("simpletuner/noise.bin", os.urandom(2_000_000))
        used = tmp_path / "served.txt"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        used.write_text(served.requirements.split("--hash")[0] + f"--hash=sha256:{digest}\n")
    child = start(project, used, fault, env=env)
    said = "".join(child.communicate(timeout=600))
    code, message = FAULTS[fault]
    assert child.returncode == code, said
    assert message in said
    assert "Traceback" not in said
    cache = Path(env.get("FLUXKIT_CACHE", os.environ["FLUXKIT_CACHE"]))
    assert list(cache.rglob(MARKER)) == []
    assert snapshot(project) == before

    again = start(project, requirements)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert _uvs_of(environment_for(lock).root) == []
    assert (environment_for(lock).root / MARKER).is_file()
    assert Path(out.strip().splitlines()[-1]) == environment_for(lock).root
    after = snapshot(project)
    assert after.pop("fluxkit.lock")
    assert after == before


@pytest.mark.slow
def test_two_at_once_build_once(tmp_path: Path, project: Path, lock: Lock) -> None:
    both = [start(project, tmp_path / "requirements.txt") for _ in range(2)]
    said = [child.communicate(timeout=600)[0] for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert sum("Making an environment" in text for text in said) == 1
    assert (environment_for(lock).root / MARKER).is_file()


def test_json_is_one_document_and_says_whether_it_was_built(tmp_path: Path, project: Path, lock: Lock) -> None:
    built = []
    for _ in range(2):
        out, err = start(project, tmp_path / "requirements.txt", "", "--json").communicate(timeout=600)
        document = json.loads(out)
        built.append(document["built"])
        assert document["environment"] == str(environment_for(lock).root)
        assert "SimpleTuner 4.8.0 (cpu)" in err or "Traceback" not in err
    assert built == [True, False]
