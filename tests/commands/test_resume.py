"""`fluxkit train` goes on: from which checkpoint, and with what changed."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from fluxkit.console import Output
from fluxkit.errors import TrainerError, UserError
from fluxkit.trainer import handover
from fluxkit.trainer.runs import ADAPTER_FILE, Run, list_runs
from tests.commands.test_train import FINISH, Trainer, run_train
from tests.trainer.checkpointed import write_checkpoint


@pytest.fixture
def stopped(project: Path, trainer: Trainer) -> Run:
    """A run that failed after its checkpoints 4 and 6."""
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(project)
    (run,) = list_runs(project / "runs")
    for step in (4, 6):
        write_checkpoint(run.output_dir, step)
    return run


def edit(project: Path, old: str, new: str) -> None:
    toml = project / "fluxkit.toml"
    assert old in toml.read_text()
    toml.write_text(toml.read_text().replace(old, new))


def test_a_truncated_checkpoint_is_reported_and_out_of_the_way(
    project: Path,
    trainer: Trainer,
    stopped: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    optimizer = stopped.output_dir / "checkpoint-6" / "optimizer.bin"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    trainer("Path('seen').write_text(' '.join(sorted(p.name for p in out.iterdir())))\n" + FINISH)
    capsys.readouterr()
    run_train(project)
    said = capsys.readouterr()
    assert "checkpoint-6 can't be used: optimizer.bin is cut off or damaged" in said.err
    assert "From checkpoint-4." in said.out
    assert (stopped.folder / "seen").read_text() == "checkpoint-4 set-aside"
    assert (stopped.output_dir / "set-aside" / "checkpoint-6" / "optimizer.bin").stat().st_size == 100


def test_a_dry_run_tells_and_moves_nothing(
    project: Path,
    stopped: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (stopped.output_dir / "checkpoint-6" / "optimizer.bin").unlink()
    run_train(project, dry_run=True)
    assert "checkpoint-6 can't be used: optimizer.bin is missing" in capsys.readouterr().err
    assert (stopped.output_dir / "checkpoint-6").is_dir()


def test_a_change_that_breaks_it_is_refused_before_launch_with_the_two_ways_out(
    project: Path,
    trainer: Trainer,
    stopped: Run,
) -> None:
    before = {path.name: path.read_bytes() for path in stopped.config_dir.iterdir()}
    trainer("raise SystemExit('must not start')")
    edit(project, "[train.options]", '[train.options]\noptimizer = "optimi-lion"\nreport_to = "none"')
    with pytest.raises(UserError, match="checkpoint-6") as caught:
        run_train(project)
    assert "optimizer: adamw_bf16 → optimi-lion" in caught.value.message
    assert "report_to" not in caught.value.message
    assert "--fresh" in caught.value.fix
    assert {path.name: path.read_bytes() for path in stopped.config_dir.iterdir()} == before
    trainer(FINISH)
    fresh = run_train(project, fresh=True)
    assert fresh is not None
    assert fresh.record.id != stopped.record.id


def test_harmless_changes_are_said_and_the_record_follows(
    project: Path,
    trainer: Trainer,
    stopped: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit(project, "steps = 10", "steps = 12")
    edit(project, "validate_every = 1000", "validate_every = 3")
    trainer(FINISH.replace("10", "12"))
    run = run_train(project)
    assert run is not None
    assert (run.record.id, run.record.steps, run.record.status) == (stopped.record.id, 12, "finished")
    said = capsys.readouterr().out
    assert "max_train_steps: 10 → 12" in said
    assert "validation_step_interval: 1000 → 3" in said


def test_fewer_steps_than_are_done_is_refused(project: Path, stopped: Run) -> None:
    edit(project, "steps = 10", "steps = 5")
    with pytest.raises(UserError, match=r"steps: 5 \(the run is at step 6 already\)"):
        run_train(project)
    assert stopped.record.id


def test_without_a_checkpoint_any_setting_may_change(project: Path, trainer: Trainer) -> None:
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(project)
    edit(project, "[train.options]", '[train.options]\noptimizer = "optimi-lion"')
    trainer(FINISH)
    assert run_train(project) is not None
    assert len(list_runs(project / "runs")) == 1


def test_another_release_is_said(
    project: Path,
    trainer: Trainer,
    stopped: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped.update(release="4.6.1")
    trainer(FINISH)
    run = run_train(project, out=Output())
    assert run is not None
    said = capsys.readouterr().err
    assert "started with SimpleTuner 4.6.1 and goes on with 4.8.0: 4.8.0 was seen to go on from checkpoints" in said
    assert "`fluxkit upgrade 4.6.1` goes back" in said
    assert run.record.release == "4.8.0"


def test_a_release_that_was_seen_not_to_go_on_is_refused_before_launch(
    project: Path, trainer: Trainer, stopped: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped.update(release="3.9.9")
    failed = handover.Handover("3.9.9", "4.8.0", False, "2026-11-24", "size mismatch")
    monkeypatch.setattr(handover, "_trials", lambda: {("3.9.9", "4.8.0"): failed})
    trainer("raise SystemExit('must not start')")
    with pytest.raises(
        UserError, match=r"SimpleTuner: 3\.9\.9 → 4\.8\.0 .*size mismatch; `fluxkit upgrade 3\.9\.9` puts"
    ):
        run_train(project)


def test_final_weights_of_an_earlier_launch_prove_nothing(project: Path, trainer: Trainer, stopped: Run) -> None:
    weights = stopped.output_dir / "checkpoint-6" / ADAPTER_FILE
    stopped.final_weights.write_bytes(weights.read_bytes())
    trainer("pass")  # exit code 0, and nothing done
    with pytest.raises(TrainerError, match="no final weights"):
        run_train(project)
    assert (stopped.output_dir / "set-aside" / ADAPTER_FILE).read_bytes() == weights.read_bytes()


def test_a_photo_replaced_between_two_launches_loses_its_latents_and_the_others_keep_theirs(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in encodes as the trainer does: by name, and only what is not there."""
    encode = """
import hashlib
for backend in json.loads(Path(config['--data_backend_config']).read_text()):
    if 'cache_dir_vae' in backend:
        for photo in Path(backend['instance_data_dir']).glob('*.png'):
            latents = Path(backend['cache_dir_vae']) / (hashlib.sha256(photo.stem.encode()).hexdigest() + '.pt')
            latents.parent.mkdir(parents=True, exist_ok=True)
            if not latents.exists():
                latents.write_bytes(hashlib.sha256(photo.read_bytes()).digest())
sys.exit(1)
"""
    trainer(encode)
    with pytest.raises(TrainerError):
        run_train(project)
    latents = {path: path.read_bytes() for path in project.glob("cache/vae/*/*.pt")}
    kept, replaced, *_ = sorted(project.glob("dataset/*.png"))
    Image.open(kept).rotate(90).save(replaced)
    capsys.readouterr()
    with pytest.raises(TrainerError):
        run_train(project)
    after = {path: path.read_bytes() for path in project.glob("cache/vae/*/*.pt")}
    assert after.keys() == latents.keys()
    name = hashlib.sha256(replaced.stem.encode()).hexdigest()
    assert {path.stem for path in latents if latents[path] != after[path]} == {name}
    assert "1 changed" in capsys.readouterr().out


def test_other_variables_for_the_trainer_are_said_and_secrets_are_not_kept(
    project: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project, "[train.options]", '[env]\nNCCL_DEBUG = "INFO"\nMY_TOKEN = "hf_secret"\n[train.options]')
    trainer("raise SystemExit(1)")
    with pytest.raises(TrainerError):
        run_train(project)
    (run,) = list_runs(project / "runs")
    write_checkpoint(run.output_dir, 6)
    assert "hf_secret" not in (run.folder / "run.json").read_text()
    edit(project, 'NCCL_DEBUG = "INFO"\nMY_TOKEN = "hf_secret"', 'OMP_NUM_THREADS = "2"\nMY_TOKEN = "hf_another"')
    capsys.readouterr()
    run_train(project, dry_run=True)
    said = capsys.readouterr().out
    assert "env.NCCL_DEBUG: INFO → not set" in said
    assert "env.OMP_NUM_THREADS: not set → 2 (the trainer's process has it from here on)" in said
    assert "TOKEN: " not in said


def test_a_variable_that_changes_a_checkpoints_layout_is_refused(project: Path, trainer: Trainer, stopped: Run) -> None:
    trainer("raise SystemExit('must not start')")
    edit(project, "[train.options]", '[env]\nACCELERATE_USE_FSDP = "true"\n[train.options]')
    with pytest.raises(UserError, match=r"env.ACCELERATE_USE_FSDP: not set → true \(checkpoints are laid out"):
        run_train(project)
    # A record from before variables were kept: nothing is known of them, and nothing is claimed.
    stopped.update(env=None)
    trainer(FINISH)
    assert run_train(project) is not None
