"""Payloads as each era sends them: copied from real rehearsals of 2.2.1 and 4.8.0, 3.0.0's built as its code does."""

import pytest

from fluxkit.trainer.events import Counter, Event, Saved, Stage
from fluxkit.trainer.progress import Step
from fluxkit.trainer.webhook import parse_webhook

OLD = {"job_id": "job", "timestamp": 1795520799}
NEW = {"severity": "info", "job_id": "job", "timestamp": "2026-11-24T11:45:17.717000+00:00"}


def counts(kind: str, current: int, total: int) -> dict[str, object]:
    message = {"progress_type": kind, "progress": 0, "total_elements": total, "current_estimated_index": current}
    return {"message_type": "progress_update", "message": message, **OLD}


def stage(key: str, status: str = "running", **progress: object) -> dict[str, object]:
    return {
        "type": "lifecycle.stage",
        "stage": {"key": key, "label": "…", "status": status, "progress": progress},
        **NEW,
    }


def status(current: object, total: object, **metrics: object) -> dict[str, object]:
    progress = {"label": None, "current": current, "total": total, "metrics": metrics}
    return {"type": "training.status", "title": "Running", "data": {"status": "running"}, "progress": progress, **NEW}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"message": "…", "message_type": "init_data_backend_begin", **OLD},
            "Reading the dataset",
        ),
        ({"message": "Loading model: `x`...", "message_type": "init_load_base_model_begin"}, "Loading the base model"),
        ({"message": "Base model …", "message_type": "init_benchmark_base_model_begin"}, "Making validation images"),
        (stage("init_load_base_model"), "Loading the base model"),
        (stage("benchmark_base_model"), "Making validation images"),
        (stage("checkpoint_save"), "Saving a checkpoint"),
        (stage("model_save"), "Saving the final weights"),
        (
            {"type": "training.validation", "message": "…", "images": ["iVBOR"], **NEW},
            "Making validation images",
        ),
    ],
)
def test_stages_have_the_same_names_in_both_eras(payload: dict[str, object], expected: str) -> None:
    assert parse_webhook(payload) == (Stage(expected),)


def test_what_is_counted_keeps_its_counts() -> None:
    assert parse_webhook(counts("init_cache_text_embeds_status_update", 3, 40)) == (Stage("Encoding captions", 3, 40),)
    assert parse_webhook(counts("init_cache_vae_processing_complete", 6, 6)) == (Stage("Caching latents", 6, 6),)
    assert parse_webhook(stage("init_cache_text_embeds_status_update", current=12, total=40, percent=30)) == (
        Stage("Encoding captions", 12, 40),
    )
    assert parse_webhook(stage("vaecache", current=2.0, total=6.0)) == (Stage("Caching latents", 2, 6),)


def test_a_stage_that_is_over_begins_nothing() -> None:
    assert parse_webhook(stage("init_load_base_model", "completed", current=1, total=1, percent=100)) == ()
    assert parse_webhook({"message": "Base model has loaded.", "message_type": "init_load_base_model_completed"}) == ()


def test_a_step_comes_with_its_loss() -> None:
    seen = status(2, 10000, loss=1.559, learning_rate=5.76e-05, epoch=1, seconds_per_step=0.32, grad_norm=0.03)
    assert parse_webhook(seen) == (Step(2, 10000, 1.559, 5.76e-05, None, gradient_norm=0.03),)


def test_the_first_era_that_tells_steps_has_fewer_metrics() -> None:
    seen = status(7, 10, loss=0.5, parent_loss=None, learning_rate=1e-4, epoch=1)
    assert parse_webhook(seen) == (Step(7, 10, 0.5, 1e-4, None),)


def test_a_loss_of_zero_is_what_is_sent_before_it_is_known() -> None:
    resumed = status(500, 1000, loss=0.0, learning_rate=0.0)
    assert parse_webhook(resumed) == (Counter(500, 1000),)
    started = {"current_step": 500, "total_num_steps": 1000, "message_type": "_train_initial_msg", **OLD}
    assert parse_webhook(started) == (Counter(500, 1000),)
    reported = {"state": {"global_step": 7}, "loss": 0.0, "learning_rate": 1e-4, "message_type": "train", **OLD}
    assert parse_webhook(reported) == (Counter(7, None),)


def test_a_checkpoint_is_known_by_its_folder() -> None:
    saved = {"type": "training.checkpoint", "checkpoint": {"path": "/runs/x/output/checkpoint-200", "is_final": False}}
    assert parse_webhook(saved) == (Saved(200),)
    saved["checkpoint"] = {"path": None}
    assert parse_webhook(saved) == ()


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "text",
        7,
        {},
        {"type": None},
        {"type": ["lifecycle.stage"]},
        {"type": "lifecycle.stage"},
        {"type": "lifecycle.stage", "stage": "init_vae_cache"},
        {"type": "lifecycle.stage", "stage": {"key": ["x"], "status": "running"}},
        {"type": "training.status", "progress": {"current": "many", "total": 3}},
        {"type": "training.status", "progress": {"current": float("nan"), "total": 3}},
        {"type": "training.status", "progress": {"current": -1, "total": 3}},
        {"type": "training.checkpoint", "checkpoint": [1]},
        {"type": "log.message", "message": "Loading model", "severity": "info"},
        {"message_type": {"a": 1}},
        {"message_type": "progress_update", "message": "text"},
        {"message_type": "train", "state": None},
    ],
)
def test_what_is_not_understood_means_nothing(payload: object) -> None:
    assert parse_webhook(payload) == ()


def test_a_diverged_loss_is_told() -> None:
    (step,) = parse_webhook(status(3, 10, loss=float("nan"), learning_rate=1e-4))
    assert isinstance(step, Step)
    assert str(step.loss) == "nan"


def test_nothing_of_a_payload_is_kept_but_what_is_named() -> None:
    told: tuple[Event, ...] = parse_webhook(
        {**status(2, 10, loss=1.0), "images": ["iVBOR"], "data": {"hub_token": "hf_secret", "status": "running"}}
    )
    assert "hf_secret" not in repr(told)
    assert "iVBOR" not in repr(told)
