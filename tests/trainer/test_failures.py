from pathlib import Path

import pytest

from fluxkit.errors import GpuMemoryError, TrainerError
from fluxkit.process import Completed
from fluxkit.trainer import failures
from fluxkit.trainer.causes import CAUSES
from fluxkit.trainer.failures import Before, Explanation, explain, kernel_says, oom_kills
from tests.trainer.failure_logs import (
    CACHING,
    CUDA_OOM,
    ENCODING,
    EXIT_1,
    FRAMES,
    LAUNCHER,
    LINES,
    LOADING,
    NAN_STEP,
    NEXT_STEP,
    QUANTIZING,
    SIGKILL,
    SIGSEGV,
    STEP,
    VALIDATING,
)  # fmt: skip

PROBLEM = "SimpleTuner failed with exit code 1."


def explained(tmp_path: Path, text: str, *, returncode: int = 1, earlier: str = "") -> Explanation:
    log = tmp_path / "trainer.log"
    log.write_text(earlier)
    before = Before(log)
    log.write_text(earlier + text)
    return explain(before, problem=PROBLEM, returncode=returncode)


@pytest.mark.parametrize(("cause", "line"), [(cause, line) for cause, lines in LINES.items() for line in lines])
def test_each_message_is_recognised_though_the_launchers_comes_last(tmp_path: Path, cause: str, line: str) -> None:
    why = explained(tmp_path, LOADING + FRAMES + line + EXIT_1)
    assert why.cause == cause
    assert why.evidence == (line.strip()[:300],)
    assert why.fix
    assert str(tmp_path / "trainer.log") in why.message


def test_every_row_of_the_table_has_a_message_that_it_was_made_from() -> None:
    assert {cause.name for cause in CAUSES} == set(LINES)


def test_memory_is_exit_code_5_and_everything_else_3(tmp_path: Path) -> None:
    codes = {cause: explained(tmp_path, FRAMES + lines[0]).error().exit_code for cause, lines in LINES.items()}
    assert {cause for cause, code in codes.items() if code == 5} == {"gpu-memory", "host-memory"}
    assert {code for code in codes.values()} == {3, 5}
    assert isinstance(explained(tmp_path, FRAMES + CUDA_OOM).error(), GpuMemoryError)
    assert isinstance(explained(tmp_path, "").error(), TrainerError)


@pytest.mark.parametrize(
    ("before", "phase", "fix"),
    [
        ("", "starting up", "profile"),
        (ENCODING, "encoding captions", "text_encoder_2_precision"),
        (CACHING, "caching latents", "vae_batch_size = 1"),
        (LOADING, "loading the base model", "quantize_via"),
        (QUANTIZING, "quantizing the base model", 'quantize_via = "cpu"'),
        (LOADING + STEP, "training, after step 3", "smaller [train] profile"),
        (STEP + VALIDATING, "making validation images", "validation_resolution"),
    ],
)
def test_out_of_memory_names_the_phase_and_what_to_change_there(
    tmp_path: Path, before: str, phase: str, fix: str
) -> None:
    why = explained(tmp_path, before + FRAMES + CUDA_OOM + EXIT_1)
    assert (why.phase, why.exit_code) == (phase, 5)
    assert fix in why.fix
    assert "wanted 2.00 GiB, total 11.99 GiB" in why.message


@pytest.mark.parametrize(
    ("function", "phase"),
    [("init_resume_checkpoint", "loading the checkpoint"), ("checkpoint_state_save", "saving a checkpoint")],
)
def test_a_traceback_may_know_the_phase_better(tmp_path: Path, function: str, phase: str) -> None:
    frame = f'  File "/env/simpletuner/helpers/training/trainer.py", line 5057, in {function}\n    load()\n'
    assert explained(tmp_path, VALIDATING + FRAMES + frame + LINES["disk-full"][0] + EXIT_1).phase == phase


def test_the_root_of_a_chain_of_tracebacks_wins(tmp_path: Path) -> None:
    chain = (
        FRAMES + LINES["disk-full"][0] + "\nDuring handling of the above exception, another exception occurred:\n\n"
        + FRAMES + LINES["checkpoint"][0] + EXIT_1
    )  # fmt: skip
    assert explained(tmp_path, chain).cause == "disk-full"


def test_what_the_run_survived_is_no_cause(tmp_path: Path) -> None:
    survived = STEP + "[ERROR] Error generating validation image: CUDA out of memory. \n" + NEXT_STEP
    assert explained(tmp_path, survived + FRAMES + LINES["disk-full"][0] + EXIT_1).cause == "disk-full"
    assert explained(tmp_path, survived + FRAMES + "KeyError: 'x'\n" + EXIT_1).cause == ""


@pytest.mark.parametrize("level", ["[INFO]", "[WARNING]", "[DEBUG]"])
def test_a_line_that_only_tells_is_no_cause(tmp_path: Path, level: str) -> None:
    assert explained(tmp_path, f"2026-11-24 {level} retrying: No space left on device\n").cause == ""
    assert explained(tmp_path, "x.py:3: UserWarning: The NVIDIA driver on your system is too old\n").cause == ""


def test_a_launch_before_this_one_is_not_looked_at(tmp_path: Path) -> None:
    assert explained(tmp_path, FRAMES + "KeyError: 'x'\n", earlier=FRAMES + CUDA_OOM).cause == ""


@pytest.mark.parametrize(
    ("text", "returncode"), [(SIGKILL, 1), ("", -9), ("", 137), ("train.sh: line 9: 71 Killed  x", 0)]
)
def test_sigkill_is_the_memory_of_the_computer(tmp_path: Path, text: str, returncode: int) -> None:
    why = explained(tmp_path, QUANTIZING + text, returncode=returncode)
    assert (why.cause, why.exit_code, why.phase) == ("killed", 5, "quantizing the base model")
    assert "most likely" in why.message
    assert "swap" in why.fix


def test_the_kernels_own_word_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n")
    assert oom_kills(tmp_path) == 2
    before = Before(tmp_path / "x.log")
    before.oom_kills = 1
    assert "oom_kill" in kernel_says(before, tmp_path)
    before.oom_kills = 2  # of before this launch
    before.seconds = 100.0
    words = "[{}] Out of memory: Killed process 71 (python) total-vm:1kB\n"

    for seconds, heard in (("   99.5", False), ("  100.5", True)):
        said = Completed(0, words.format(seconds), "")
        monkeypatch.setattr(failures, "run", lambda *_, said=said, **__: said)
        assert ("Killed process 71" in kernel_says(before, tmp_path)) is heard


def test_a_loss_that_became_nan_is_named_with_its_step(tmp_path: Path) -> None:
    why = explained(tmp_path, STEP + NAN_STEP + FRAMES + "KeyError: 'x'\n")
    assert why.cause == "nan"
    assert "at step 4" in why.message
    assert "learning_rate" in why.fix


def test_what_is_not_recognised_shows_the_first_traceback_the_log_and_the_report(tmp_path: Path) -> None:
    why = explained(tmp_path, STEP + FRAMES + "KeyError: 'no idea'\n" + EXIT_1)
    assert why.cause == ""
    assert why.exit_code == 3
    assert "KeyError: 'no idea'" in why.message
    assert "CalledProcessError" not in why.message
    assert "TorchDynamo" not in why.message
    assert PROBLEM in why.message
    assert "after step 3" in why.message
    assert "doctor --bundle" in why.fix


def test_a_crash_is_called_one(tmp_path: Path) -> None:
    assert "crashed (SIGSEGV)" in explained(tmp_path, STEP + SIGSEGV).message


def test_without_a_log_there_is_an_explanation_too(tmp_path: Path) -> None:
    assert "It said nothing" in explain(Before(tmp_path / "absent"), problem=PROBLEM, returncode=127).message


def test_of_a_huge_log_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_MOST_BYTES", 5000)
    assert explained(tmp_path, "x" * 50_000 + "\n" + FRAMES + CUDA_OOM + LAUNCHER).cause == "gpu-memory"


def test_the_documented_table_is_the_one_that_is_used(project_root: Path) -> None:
    text = (project_root / "docs" / "failures.md").read_text()
    rows = [f"| {cause.name} | {cause.message} | {cause.fix} | {cause.exit_code} |" for cause in CAUSES]
    assert [row for row in rows if row not in text] == []
