import pytest

from fluxkit.errors import UserError
from fluxkit.trainer import environment as environments
from fluxkit.trainer import lock as locks
from fluxkit.trainer.lock import choose_platform, shipped_lock
from fluxkit.trainer.releases import find_release


def test_shipped_locks_differ_by_platform_and_name_the_folder() -> None:
    cpu, cuda = (shipped_lock(find_release("4.8.0"), platform) for platform in ("cpu", "cuda"))
    assert cpu is not None
    assert cuda is not None
    assert cpu.digest != cuda.digest
    assert environments.environment_for(cpu).root.name == f"simpletuner-4.8.0-cpu-{cpu.digest[:12]}"


def test_release_without_a_shipped_lock_has_none() -> None:
    assert shipped_lock(find_release("1.2.5"), "cpu") is None


def test_platform_follows_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "gpus", list)
    assert choose_platform("auto") == "cpu"
    monkeypatch.setattr(locks, "gpus", lambda: ["a GPU"])
    assert [choose_platform(setting) for setting in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    with pytest.raises(UserError):
        choose_platform("tpu")
