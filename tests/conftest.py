"""What every test gets: a home of its own, no tokens, no network to a model hub."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("words")


@pytest.fixture(autouse=True)
def _own_home(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    _words: Path,
) -> None:
    """No test reads or writes the real home, its caches or its tokens."""
    home = tmp_path_factory.mktemp("home")
    if request.module.__name__ != "tests.dataset.test_trigger":
        # Which languages know a trigger is looked up once, not a second or two in every test.
        (home / ".cache" / "fluxkit").mkdir(parents=True)
        (home / ".cache" / "fluxkit" / "words").symlink_to(_words)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("FLUXKIT_CACHE", str(home / ".cache" / "fluxkit"))
    monkeypatch.setenv("HF_HOME", str(home / ".cache" / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "VIRTUAL_ENV", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project_root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent
