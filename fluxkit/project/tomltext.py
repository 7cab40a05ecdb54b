"""`fluxkit.toml` and `prompts.toml` as text: every value escaped, with comments that a photographer understands."""

import re
from collections.abc import Mapping
from typing import Any

from fluxkit.project.config import ProjectConfig

# Settings that most projects never change are left out as long as they have their default.
_QUIET = {
    "dataset.face_model",
    "model.revision", "model.adapter", "train.validation_prompt", "simpletuner.platform", "simpletuner.mirror",
    "simpletuner.path", "sample.base_seed", "sample.strength", "sample.batch_size",
}  # fmt: skip
_HEADINGS = {
    "train.options": "any SimpleTuner option by its name; checked before the training starts",
    "lycoris": "LyCORIS settings, for those who know them",
    "env": "environment variables for the trainer",
    "simpletuner": "the trainer; `fluxkit install` fetches this version",
    "sample": "the pictures that `fluxkit sample` makes",
}
_COMMENTS = {
    "project.trigger": "the made-up word that stands for you; it begins every caption and prompt",
    "project.subject": "the everyday word for what the photos show: man, woman, dog",
    "dataset.path": "the folder with the photos: 20 are good, 5 the least",
    "dataset.resolutions": "the square sizes to learn at; no photo may be smaller than the largest",
    "dataset.repeats": "how often each photo is shown again; no need to change it",
    "dataset.face_model": "a YuNet file to find faces with, instead of OpenCV's cascades",
    "dataset.captions": '"textfile": photo.txt says what photo.jpg shows; "trigger": there are no such texts',
    "model.base": "the model that learns: its name on Hugging Face, or a folder",
    "train.profile": 'the memory of your graphics card: "12gb", "16gb", "24gb" or "48gb"',
    "train.steps": "how long to train; 10000 steps of one photo give a good likeness and take about 10 hours",
    "train.checkpoint_every": "keep the result so far, to compare or to go on from",
    "train.validate_every": "make test pictures, to watch it learn",
    "train.seed": "the same seed starts from the same random numbers",
    "train.learning_rate": "how fast to learn; too fast ruins the likeness",
    "sample.num_inference_steps": "more is slower and a little finer",
    "sample.guidance_scale": "higher follows the prompt more closely; around 3 looks natural",
    "sample.seeds_per_prompt": "how many different pictures of each prompt",
    "sample.quantize": '"auto": the fastest that your graphics card does well; "int8": what training used',
}
_CONFIG_HEAD = "# Everything fluxkit knows about this project. Change what you like, then run `fluxkit validate`.\n"
_PROMPTS_HEAD = """\
# What to make pictures of: name = "text". {trigger} becomes the trigger of fluxkit.toml.
# The names become file names: letters, digits, _ and -. Add as many as you like.

[prompts]
"""


def config_toml(config: ProjectConfig) -> str:
    """The text of a `fluxkit.toml` that says what `config` says."""
    sections = []
    defaults = type(config).model_fields
    for section in defaults:
        value = getattr(config, section)
        if isinstance(value, dict):
            if value:
                sections.append(_table(section, value))
            continue
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        options = fields.pop("options", None)
        shown = {name: item for name, item in fields.items() if not _quiet(value, section, name)}
        sections.append(_table(section, shown))
        if options is not None:
            sections.append(_table(f"{section}.options", options))
    return "\n".join([_CONFIG_HEAD, *sections])


def prompts_toml(prompts: Mapping[str, str]) -> str:
    """The text of a `prompts.toml`."""
    return _PROMPTS_HEAD + "".join(f"{_key(name)} = {toml_value(text)}\n" for name, text in prompts.items())


def toml_value(value: Any) -> str:
    """A value on one line of TOML; strings are escaped, whatever they hold."""
    import tomlkit

    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(str(key))} = {toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return str(tomlkit.item(value).as_string())


def _table(name: str, values: Mapping[str, Any]) -> str:
    heading = _HEADINGS.get(name)
    lines = [f"[{name}]    # {heading}" if heading else f"[{name}]"]
    for key, value in values.items():
        comment = _COMMENTS.get(f"{name}.{key}")
        line = f"{_key(key)} = {toml_value(value)}"
        lines.append(f"{line:<30} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def _quiet(section: Any, section_name: str, field: str) -> bool:
    default = type(section).model_fields[field].default
    return f"{section_name}.{field}" in _QUIET and getattr(section, field) == default


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)
