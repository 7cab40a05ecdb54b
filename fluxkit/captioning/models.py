"""Which model describes pictures, found out from its `config.json` before its weights are loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluxkit.errors import UserError
from fluxkit.hub import check_model

DEFAULT_MODEL = "florence-community/Florence-2-large"
_OTHER = f"Use {DEFAULT_MODEL}, or an image-text-to-text model that is made for chatting."


@dataclass(frozen=True)
class ModelSpec:
    """A model that can be loaded.

    Args:
        name: Hub id, or path of a local folder.
        kind: `florence` takes a task word, `chat` takes an instruction in its chat template.
        local: whether it is on this machine: then nothing asks the Hub.
    """

    name: str
    kind: Literal["florence", "chat"]
    local: bool


def find_model(name: str) -> ModelSpec:
    """Find a model and what kind it is.

    Args:
        name: a Hub id or a local folder.

    Raises:
        UserError: there is none of that name, the Hub refuses it or can't be reached, it is no model that describes
            pictures, or one that wants to run code of its own.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is no model: it has no config.json.", fix=_OTHER)
        config = _read(folder / "config.json")
        return ModelSpec(str(folder), _kind(name, config), local=True)
    local = check_model(name)
    return ModelSpec(name, _kind(name, _hub_config(name)), local)


def _kind(name: str, config: dict[str, Any]) -> Literal["florence", "chat"]:
    model_type = str(config.get("model_type", ""))
    if model_type == "florence2":
        if "auto_map" in config:
            raise UserError(
                f"{name} brings its own code, which fluxkit does not run.",
                fix=f"Use the same model in the form that needs none: --model {DEFAULT_MODEL}",
            )
        return "florence"
    if model_type in _describing():
        return "chat"
    what = f'is a "{model_type}"' if model_type else "says of no kind what it is"
    raise UserError(f"{name} {what}: no model that fluxkit can ask about a picture.", fix=_OTHER)


def _describing() -> frozenset[str]:
    """The model types that the installed transformers can load as image-text-to-text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return frozenset(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def _hub_config(name: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        return _read(Path(hf_hub_download(name, "config.json")))
    except UserError:
        raise
    except Exception as error:  # the Hub's errors have many classes, by version and by library underneath
        raise UserError(f"{name} has no config.json that can be had: {_first_line(error)}", fix=_OTHER) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}", fix="Download the model again.") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} is no model's config.", fix="Download the model again.")
    return data


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
