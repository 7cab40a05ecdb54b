import tomllib
from pathlib import Path

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer import environment as environments
from fluxkit.trainer import lock as locks
from fluxkit.trainer.lock import choose_platform, shipped_lock, write_project_lock
from fluxkit.trainer.releases import find_release


def test_shipped_locks_differ_by_platform_and_name_the_folder() -> None:
    cpu, cuda = (shipped_lock(find_release("4.8.0"), platform) for platform in ("cpu", "cuda"))
    assert cpu.digest != cuda.digest
    assert environments.environment_for(cpu).root.name == f"simpletuner-4.8.0-cpu-{cpu.digest[:12]}"


def test_release_without_lock_is_a_user_error() -> None:
    with pytest.raises(UserError, match="ships no lock"):
        shipped_lock(find_release("1.2.5"), "cpu")


def test_platform_follows_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "gpus", list)
    assert choose_platform("auto") == "cpu"
    monkeypatch.setattr(locks, "gpus", lambda: ["a GPU"])
    assert [choose_platform(setting) for setting in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    with pytest.raises(UserError):
        choose_platform("tpu")


def test_project_lock_holds_the_pin(tmp_path: Path) -> None:
    lock = shipped_lock(find_release("4.8.0"), "cpu")
    write_project_lock(tmp_path / "fluxkit.lock", lock, "3.12.4")
    written = tomllib.loads((tmp_path / "fluxkit.lock").read_text())["simpletuner"]
    assert (written["version"], written["platform"], written["python"]) == ("4.8.0", "cpu", "3.12.4")
    assert written["sha256"] == lock.digest
