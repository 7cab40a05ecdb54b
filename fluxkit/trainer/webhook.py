"""What SimpleTuner's raw webhooks mean, in both of their shapes; anything else means nothing.

To 2.2.1: `{message_type, job_id, timestamp, …}`; from 3.0.0: `{type, severity, job_id, timestamp, …}`. Read in
`helpers/webhooks/{handler,mixin,events}.py` and `helpers/training/trainer.py` of 1.2, 2.2.1, 3.0.0, 4.8.0 and 4.10.1.
Only what is named here is taken from a payload: a payload may hold pictures and the whole configuration.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fluxkit.trainer import events
from fluxkit.trainer.events import Counter, Event, Saved, Stage
from fluxkit.trainer.progress import Step

# The keys of stages: `stage.key` from 3.0.0, `message.progress_type` before.
_STAGES = {
    "init_data_backend": events.READING,
    "init_cache_text_embeds_started": events.ENCODING,
    "init_cache_text_embeds_status_update": events.ENCODING,
    "init_cache_text_embeds_status_complete": events.ENCODING,
    "init_vae_cache": events.CACHING,
    "init_cache_vae_processing_started": events.CACHING,
    "vaecache": events.CACHING,
    "init_cache_vae_processing_complete": events.CACHING,
    "init_load_base_model": events.LOADING,
    "init_prepare_models": events.PREPARING,
    "init_resume_checkpoint": events.RESUMING,
    "benchmark_base_model": events.VALIDATING,
    "validation": events.VALIDATING,
    "final_validation": events.VALIDATING,
    "checkpoint_save": events.SAVING,
    "model_save": events.FINISHING,
}
# The messages of 1.2 to 2.2.1 that begin a stage.
_BEGINNINGS = {
    "init_data_backend_begin": events.READING,
    "init_load_base_model_begin": events.LOADING,
    "init_prepare_models_begin": events.PREPARING,
    "init_benchmark_base_model_begin": events.VALIDATING,
}
_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")


def parse_webhook(payload: object) -> tuple[Event, ...]:
    """The events in one payload; empty for what is not understood."""
    if not isinstance(payload, Mapping):
        return ()
    parse = _new if "type" in payload else _old if "message_type" in payload else None
    return tuple(parse(payload)) if parse else ()


def _new(payload: Mapping[str, Any]) -> Iterator[Event]:
    match payload["type"]:
        case "lifecycle.stage":
            stage = _table(payload, "stage")
            name = _STAGES.get(str(stage.get("key")))
            if name and (stage.get("status") == "running" or name == events.CACHING):
                progress = _table(stage, "progress")
                yield _counted(name, progress.get("current"), progress.get("total"))
        case "training.status":
            progress = _table(payload, "progress")
            metrics = _table(progress, "metrics")
            yield from _step(progress.get("current"), progress.get("total"), metrics, _rate(metrics))
        case "training.checkpoint":
            found = _CHECKPOINT.search(str(_table(payload, "checkpoint").get("path", "")).rstrip("/"))
            if found:
                yield Saved(int(found[1]))
        case "training.validation":
            yield Stage(events.VALIDATING)


def _old(payload: Mapping[str, Any]) -> Iterator[Event]:
    kind = payload["message_type"]
    if kind == "progress_update":
        message = _table(payload, "message")
        name = _STAGES.get(str(message.get("progress_type")))
        if name:
            yield _counted(name, message.get("current_estimated_index"), message.get("total_elements"))
    elif kind == "_train_initial_msg":
        yield from _step(payload.get("current_step"), payload.get("total_num_steps"), {}, None)
    elif kind == "train":
        # Its loss is 0 in every release that sends it: the trainer has reset it by then.
        yield from _step(_table(payload, "state").get("global_step"), None, {}, None)
    elif isinstance(kind, str) and kind in _BEGINNINGS:
        yield Stage(_BEGINNINGS[kind])


def _step(current: object, total: object, metrics: Mapping[str, Any], rate: float | None) -> Iterator[Event]:
    step, steps = _count(current), _count(total)
    if step is None:
        return
    loss = _number(metrics.get("loss"))
    # 0 is what the trainer sends before the first step of a launch.
    if step and steps and loss is not None and loss != 0:
        norm = _number(metrics.get("grad_norm", metrics.get("grad_absmax")))
        yield Step(step, steps, loss=loss, learning_rate=rate, seconds_per_step=None, gradient_norm=norm)
    else:
        yield Counter(step, steps)


def _rate(metrics: Mapping[str, Any]) -> float | None:
    return _number(metrics.get("learning_rate"))


def _counted(name: str, current: object, total: object) -> Stage:
    done, of = _count(current), _count(total)
    # 1 of 1 says that the stage is over, nothing about its size.
    return Stage(name, done, of) if done is not None and of is not None and of > 1 else Stage(name)


def _table(payload: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = payload.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) and 0 <= number < 1e12 else None
