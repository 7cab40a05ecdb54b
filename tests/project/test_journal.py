"""A switch of several files, killed for real at every step that touches the disk."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.project import journal
from fluxkit.project.journal import recover, switch

OLD = {"fluxkit.toml": b"old config", "fluxkit.lock": b"old lock"}
NEW = {"fluxkit.toml": b"new config", "fluxkit.lock": b"new lock", "fluxkit.toml.bak": b"old config"}

# Kills its own process right before the n-th call of a function that changes the disk.
DRIVER = """
import os, pathlib, shutil, signal, sys
from pathlib import Path
root, left = Path(sys.argv[1]), int(sys.argv[2])

def lethal(function):
    def wrapped(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

from fluxkit.project import journal
for owner, name in [(Path, "mkdir"), (Path, "rename"), (Path, "replace"), (Path, "write_bytes"), (Path, "unlink"),
                    (os, "unlink"), (os, "rmdir"), (os, "fsync")]:
    setattr(owner, name, lethal(getattr(owner, name)))
journal.switch(root, {new!r}, before={old!r})
print(left)
"""


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.iterdir() if path.is_file() and path.name != ".fluxkit-switch.lock")
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in OLD.items():
        (tmp_path / name).write_bytes(text)
    return tmp_path


def test_all_files_are_switched_and_nothing_is_left_behind(root: Path) -> None:
    switch(root, NEW, before=OLD)
    assert contents(root) == NEW
    assert not [path for path in root.iterdir() if path.is_dir()]


@pytest.mark.parametrize("step", range(60))
def test_killed_at_any_step_it_is_the_old_or_the_new_state_after_the_next_command(root: Path, step: int) -> None:
    code = DRIVER.replace("{new!r}", repr(NEW)).replace("{old!r}", repr(OLD))
    done = subprocess.run([sys.executable, "-c", code, root, str(step)], check=False, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    recover(root)
    assert contents(root) in (OLD, NEW)
    assert not [path for path in root.iterdir() if path.is_dir()]
    if done.returncode == 0:
        assert contents(root) == NEW
    # The next try succeeds.
    now = contents(root)
    switch(root, NEW, before={name: now.get(name) for name in OLD})
    assert contents(root) == NEW


def test_the_steps_above_cover_the_whole_switch(root: Path) -> None:
    code = DRIVER.replace("{new!r}", repr(NEW)).replace("{old!r}", repr(OLD))
    done = subprocess.run([sys.executable, "-c", code, root, "1000"], check=True, capture_output=True, text=True)
    assert 1000 - int(done.stdout) <= 60


def test_an_edit_made_meanwhile_is_never_lost(root: Path) -> None:
    (root / "fluxkit.toml").write_bytes(b"edited")
    with pytest.raises(UserError, match="was changed while"):
        switch(root, NEW, before=OLD)
    assert contents(root) == {**OLD, "fluxkit.toml": b"edited"}


def test_a_damaged_journal_is_named_and_touches_nothing(root: Path) -> None:
    decided = root / ".fluxkit-switch"
    decided.mkdir()
    (decided / "journal.json").write_text('{"fluxkit.toml": "00"}')
    (decided / "fluxkit.toml").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        recover(root)
    assert contents(root) == OLD


@pytest.mark.parametrize("written", range(4))
def test_a_full_disk_changes_nothing_and_the_next_try_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    room = [written]

    def write(path: Path, contents: bytes) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(contents)

    monkeypatch.setattr(journal, "write_bytes", write)
    with pytest.raises(UserError, match="No space left") as caught:
        switch(root, NEW, before=OLD)
    assert "nothing was switched" in caught.value.message
    assert contents(root) == OLD
    monkeypatch.undo()
    switch(root, NEW, before=OLD)
    assert contents(root) == NEW
