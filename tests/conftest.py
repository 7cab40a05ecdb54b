"""What every test gets: a home of its own, no tokens, no network to a model hub."""

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says how busy the machine is. The examples are the same each time: a change is blamed for
# what it broke, not for what a roll of the dice found in another place. `--hypothesis-profile=dice` rolls them.
STEADY = hypothesis.settings(
    deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow], database=None
)
hypothesis.settings.register_profile("steady", STEADY)
hypothesis.settings.register_profile("dice", STEADY, derandomize=False, max_examples=1000)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """A script's background job ignores SIGINT, nohup's SIGHUP, and every program started from there would too."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


@pytest.fixture
def fast_profile() -> str:
    """A profile beside its class's own, with three photos a step: its name."""
    return "24gb-fast"
