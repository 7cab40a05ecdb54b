import subprocess
import sys
from pathlib import Path

import pytest

from fluxkit import cli, errors


def run(*argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fluxkit", *argv], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_help_imports_click_and_nothing_else_that_is_installed() -> None:
    code = (
        "import sys\nsys.argv = ['fluxkit', '--help']\nbefore = set(sys.modules)\nfrom fluxkit.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "new = {name: sys.modules[name] for name in set(sys.modules) - before}\n"
        "installed = {name.split('.')[0] for name, module in new.items()\n"
        "             if 'site-packages' in (getattr(module, '__file__', '') or '')}\n"
        "print(sorted(installed), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "fluxkit train" in done.stdout or "  train " in done.stdout
    assert done.stderr.strip() == "['click']"


def test_every_verb_of_the_contract_that_exists_is_listed() -> None:
    done = run("--help")
    assert done.returncode == 0
    verbs = "init validate prepare caption render install train attach stop runs sample upgrade doctor demo"
    for verb in verbs.split():
        assert f"\n  {verb} " in done.stdout


def test_no_project_is_one_message_and_the_next_step(tmp_path: Path) -> None:
    done = run("validate", cwd=tmp_path)
    assert done.returncode == 1
    assert "no fluxkit.toml" in done.stderr
    assert "fluxkit init" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_errors_exit_with_2() -> None:
    assert run("train", "--no-such-flag").returncode == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UserError("x"), 1),
        (errors.TrainerError("x"), 3),
        (errors.InstallError("x"), 4),
        (errors.GpuMemoryError("x"), 5),
        (errors.InterruptedByUser("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_failure_has_its_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_leaves_a_log_to_paste_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 70
    message = capsys.readouterr().err
    log = Path(message.split("A log to paste: ")[1].strip())
    assert "ZeroDivisionError: oops" in log.read_text()
    assert "Traceback" not in message
