"""What the trainer's memory is taken to be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fluxkit.hardware import MemoryWatch, children_bytes, held_bytes
from tests.commands.trainers import wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")

MIB = 2**20
# Says how it is done, and waits until it is told to end.
MAPS_A_FILE = """
import mmap, sys
with open(sys.argv[1], "rb") as handle:
    view = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
    total = sum(view[at] for at in range(0, len(view), 4096))
print("ready", flush=True)
sys.stdin.read()
"""
HOLDS = """
import sys
held = bytearray(b"x") * (96 * 2**20)
print("ready", flush=True)
sys.stdin.read()
"""
SHARES = """
import mmap, sys
held = mmap.mmap(-1, 96 * 2**20)  # anonymous and shared: it belongs to no file
for at in range(0, len(held), 4096):
    held[at] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def child(code: str, *args: object) -> Iterator[int]:
    """A process that has run `code` as far as `ready`, and holds on to what it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
    finally:
        process.communicate()


def test_a_mapped_file_is_resident_but_not_held(tmp_path: Path) -> None:
    """The kernel takes a file's pages back: 22 GiB of a model's weights must not count as RAM that is needed."""
    import psutil

    path = tmp_path / "weights"
    path.write_bytes(os.urandom(MIB) * 96)
    with child(MAPS_A_FILE, path) as pid:
        held = held_bytes(pid)
        assert psutil.Process(pid).memory_info().rss > 96 * MIB
        assert held is not None
        assert held < 64 * MIB


@pytest.mark.parametrize("code", [HOLDS, SHARES], ids=["own", "shared"])
def test_memory_without_a_file_is_held(code: str) -> None:
    with child(code) as pid:
        held = held_bytes(pid)
        assert held is not None
        assert held > 96 * MIB
        assert children_bytes() > 96 * MIB


def test_the_watch_keeps_the_most_that_was_held() -> None:
    with MemoryWatch() as watch:
        with child(HOLDS):
            wait_until(lambda: watch.host_bytes > 96 * MIB, "the watch sees it", 10)
        assert children_bytes() < 96 * MIB
    assert watch.host_bytes > 96 * MIB


def test_a_process_that_is_gone_holds_nothing_known() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert held_bytes(process.pid) is None
