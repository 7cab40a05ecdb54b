import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fluxkit.errors import InstallError, UserError
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.releases import find_release
from fluxkit.trainer.sources.git import ensure_checkout, lock_from_git
from fluxkit.trainer.sources.repository import Repository

pytestmark = pytest.mark.usefixtures("quickly_resolved")
GIT = shutil.which("git") or "git"
FLAT, PACKAGED = "1.4.0", "4.7.0"


def lock(upstream, version: str = PACKAGED, lines: list[str] | None = None) -> Lock:
    report = (lambda _: None) if lines is None else lines.append
    return lock_from_git(find_release(version), "cpu", str(upstream.folder), report)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


@pytest.mark.parametrize("version", [FLAT, PACKAGED])
@pytest.mark.parametrize("annotated", [False, True])
def test_the_tags_commit_is_locked_and_checked_out_as_it_is(upstream, version: str, annotated: bool) -> None:
    commit = upstream.release(version, annotated=annotated)
    made = lock(upstream, version)
    assert made.source == Source("git", str(upstream.folder), commit)
    assert made.origin == "resolved"
    assert "tiny-dependency==1.0" in made.requirements
    assert "simpletuner" not in made.requirements
    assert made.source.folder is not None
    assert files(made.source.folder) == files(upstream.folder)
    assert not (made.source.folder / ".git").exists()


def test_a_file_url_is_a_mirror_too(upstream) -> None:
    commit = upstream.release(PACKAGED)
    made = lock_from_git(find_release(PACKAGED), "cpu", upstream.folder.as_uri(), lambda _: None)
    assert made.source.commit == commit


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_plain_web_server_is_a_mirror_too(upstream) -> None:
    upstream.release(FLAT)
    commit = upstream.release(PACKAGED)
    subprocess.run([GIT, "update-server-info"], cwd=upstream.folder, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(upstream.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/.git"
        made = lock_from_git(find_release(PACKAGED), "cpu", url, lambda _: None)
    finally:
        server.shutdown()
        server.server_close()
    assert made.source.commit == commit
    assert made.source.folder is not None
    assert files(made.source.folder) == files(upstream.folder)


def test_a_tag_that_is_not_there_is_named_with_the_nearest(upstream) -> None:
    upstream.release("4.6.9")
    upstream.release("5.0.0")
    with pytest.raises(UserError, match=r"no tag v4\.7\.0\. The nearest is v4\.6\.9") as error:
        lock(upstream)
    assert error.value.fix


def test_a_tag_of_another_version_is_refused(upstream) -> None:
    upstream.release("4.6.9")
    subprocess.run([GIT, "tag", f"v{PACKAGED}"], cwd=upstream.folder, check=True)
    with pytest.raises(UserError, match=r"is SimpleTuner 4\.6\.9, not 4\.7\.0"):
        lock(upstream)


def test_a_commit_that_fluxkit_knows_to_be_another_is_refused(upstream) -> None:
    upstream.release(PACKAGED)
    known = replace(find_release(PACKAGED), commit="f" * 40)
    with pytest.raises(InstallError, match="moved upstream, or the mirror is a changed copy"):
        lock_from_git(known, "cpu", str(upstream.folder), lambda _: None)


def test_a_moved_tag_is_never_followed_and_the_locked_commit_still_serves(upstream) -> None:
    commit = upstream.release(PACKAGED)
    before = files(upstream.folder)
    made = lock(upstream)
    moved = upstream.move_tag(PACKAGED)
    assert made.source.folder is not None
    shutil.rmtree(made.source.folder)
    lines: list[str] = []
    folder = ensure_checkout(made, lines.append)
    assert folder.name == commit
    assert files(folder) == before
    assert any("moved upstream" in line and moved[:12] in line for line in lines)


def test_a_moved_tag_whose_commit_is_gone_is_an_error(upstream) -> None:
    upstream.release(PACKAGED)
    made = lock(upstream)
    upstream.move_tag(PACKAGED, forget=True)
    assert made.source.folder is not None
    shutil.rmtree(made.source.folder)
    shutil.rmtree(Repository(made.source.url).folder)
    with pytest.raises(InstallError, match=r"moved upstream.* Nothing was changed") as error:
        ensure_checkout(made, lambda _: None)
    assert "delete fluxkit.lock" in error.value.fix
    assert not made.source.folder.exists()


def test_without_a_network_the_cache_serves_and_says_so(upstream, tmp_path: Path) -> None:
    commit = upstream.release(PACKAGED)
    made = lock(upstream)
    upstream.folder.rename(tmp_path / "gone")
    assert made.source.folder is not None
    shutil.rmtree(made.source.folder)
    lines: list[str] = []
    assert ensure_checkout(made, lines.append).name == commit
    assert any("from the cache" in line for line in lines)
    assert lock(upstream).source.commit == commit


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/it.git", "can't be reached"),
        ("/nowhere/it.git", "no repository"),
        ("ext::sh -c touch% /tmp/pwned", "can't be read"),
    ],
)
def test_a_repository_that_can_not_be_read_is_named(url: str, said: str) -> None:
    with pytest.raises(InstallError, match=said) as error:
        lock_from_git(find_release(PACKAGED), "cpu", url, lambda _: None)
    assert error.value.fix


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "")
    with pytest.raises(InstallError) as error:
        lock_from_git(find_release(PACKAGED), "cpu", "http://me:s3cret@127.0.0.1:9/it.git", lambda _: None)
    assert "s3cret" not in error.value.message
    assert "127.0.0.1:9/it.git" in error.value.message


def test_without_git_the_next_step_is_named(upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    upstream.release(PACKAGED)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="git is not installed") as error:
        lock(upstream)
    assert "pypi" in error.value.fix


def test_a_checkout_that_somebody_changed_is_made_anew(upstream) -> None:
    upstream.release(PACKAGED)
    made = lock(upstream)
    folder = made.source.folder
    assert folder is not None
    (folder / "simpletuner" / "train.py").write_text("other")
    (folder / "added.py").touch()
    lines: list[str] = []
    ensure_checkout(made, lines.append)
    assert files(folder) == files(upstream.folder)
    assert any("making it anew" in line for line in lines)


def test_a_newer_release_is_fetched_into_the_same_cache(upstream) -> None:
    upstream.release(FLAT)
    lock(upstream, FLAT)
    subprocess.run([GIT, "rm", "-rq", "."], cwd=upstream.folder, check=True)
    commit = upstream.release(PACKAGED)
    assert lock(upstream).source.commit == commit
    assert Repository(str(upstream.folder)).cached_tag(f"v{FLAT}")


def test_nothing_of_the_users_git_changes_the_checkout(upstream, tmp_path: Path, monkeypatch) -> None:
    home = Path(os.environ["HOME"])
    other = tmp_path / "other"
    subprocess.run([GIT, "init", "-q", other], check=True)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n\tautocrlf = true\n[url "/nowhere/"]\n\tinsteadOf = {upstream.folder}\n'
        '[filter "shout"]\n\tsmudge = tr a-z A-Z\n[fetch]\n\tfsckObjects = true\n'
    )
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "attributes").write_text("* filter=shout\n")
    upstream.release(PACKAGED)
    user = {"GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / "index"), "GIT_WORK_TREE": str(other)}
    user |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.bare",
        "GIT_CONFIG_VALUE_0": "maybe",
        "TZ": "Asia/Tokyo",
    }
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(other)
    environment = dict(os.environ)
    made = lock(upstream)
    assert dict(os.environ) == environment
    assert made.source.folder is not None
    assert files(made.source.folder) == files(upstream.folder)
    assert not (tmp_path / "hooked").exists()
    assert not (other / "index").exists()


CALL = """
import sys
from dataclasses import replace
from fluxkit.trainer import releases as table
from fluxkit.trainer.lock import Lock, Source
from fluxkit.trainer.sources.git import ensure_checkout
release = replace(table.find_release("4.8.0"), version="4.7.0")
print(ensure_checkout(Lock(release, "cpu", "", Source("git", sys.argv[1], sys.argv[2])), lambda line: None))
"""


def start(upstream, commit: str, **env: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CALL, str(upstream.folder), commit]
    return subprocess.Popen(
        command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("step", ["init", "fetch", "read-tree", "checkout-index"])
def test_after_a_kill_the_next_try_succeeds(upstream, tmp_path: Path, step: str) -> None:
    commit = upstream.release(PACKAGED)
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    # The real git does its work, and leaves what a killed one leaves.
    wrapper.write_text(
        f'#!/bin/sh\n{GIT} "$@"; status=$?\nfor word in "$@"; do\n'
        f'case "$word" in --git-dir=*) bare="${{word#--git-dir=}}";; esac\n'
        f'if [ "$word" = {step} ]; then\n'
        f'[ -d "$bare" ] && touch "$bare/shallow.lock" "$bare/packed-refs.lock" "$bare/objects/pack/tmp_pack_x"\n'
        f'[ -n "$GIT_INDEX_FILE" ] && touch "$GIT_INDEX_FILE.lock"\n'
        f"touch '{tmp_path}/reached'; sleep 60\nfi\ndone\nexit $status\n"
    )
    wrapper.chmod(0o755)
    child = start(upstream, commit, PATH=f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    while not (tmp_path / "reached").exists():
        assert child.poll() is None
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    source = Source("git", str(upstream.folder), commit)
    assert source.folder is not None
    assert not source.folder.exists()
    made = ensure_checkout(Lock(find_release(PACKAGED), "cpu", "", source), lambda _: None)
    assert files(made) == files(upstream.folder)
    assert sorted(path.name for path in made.parent.iterdir()) == [commit, f"{commit}.lock"]


def test_two_at_once_both_succeed(upstream) -> None:
    commit = upstream.release(PACKAGED)
    children = [start(upstream, commit) for _ in range(2)]
    printed = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    (folder,) = printed
    assert files(Path(folder)) == files(upstream.folder)


@pytest.mark.parametrize("what", ["commit", "one file"])
def test_a_damaged_copy_is_fetched_anew(upstream, what: str) -> None:
    commit = upstream.release(PACKAGED)
    made = lock(upstream)
    objects = Repository(made.source.url).folder / "objects"
    command = [GIT, "rev-parse", f"{commit}:simpletuner/train.py" if what == "one file" else commit]
    found = subprocess.run(command, cwd=upstream.folder, check=True, capture_output=True, text=True).stdout.strip()
    damaged = objects / found[:2] / found[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"")
    assert made.source.folder is not None
    shutil.rmtree(made.source.folder)
    assert files(ensure_checkout(made, lambda _: None)) == files(upstream.folder)
