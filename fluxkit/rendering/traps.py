"""Texts that SimpleTuner would read as something else, and a schedule that it fails on, found before it does."""

from collections.abc import Iterator, Mapping
from typing import Any

from fluxkit.errors import UserError


def pick_validation_prompt(chosen: str | None, prompts: Mapping[str, str]) -> str:
    """The validation prompt: the chosen one, or the first of the library that can be an option's value.

    Raises:
        UserError: SimpleTuner would not take it as text.
    """
    candidates = list(prompts.values()) if chosen is None else [chosen]
    for prompt in candidates:
        if _trap(prompt) is None:
            return prompt
    if not candidates:
        raise UserError("There is no validation prompt.", fix="Write one into prompts.toml, under [prompts].")
    raise UserError(
        f"The validation prompt {candidates[0]!r} can't reach SimpleTuner: {_trap(candidates[0])}.",
        fix="Write another one into [train] validation_prompt.",
    )


def check_schedule(config: Mapping[str, Any]) -> None:
    """Refuse a polynomial schedule whose warm-up is the whole run: its decay divides by zero at the last step.

    Args:
        config: options and values, without `--`.

    Raises:
        UserError: it is.
    """
    if config.get("lr_scheduler") == "polynomial" and config.get("lr_warmup_steps") == config.get("max_train_steps"):
        raise UserError(
            f"lr_warmup_steps is {config['lr_warmup_steps']}, the whole run: SimpleTuner would fail at its end.",
            fix="Set lr_warmup_steps lower than [train] steps.",
        )


def check_texts(documents: Mapping[str, object]) -> None:
    """Refuse `{env:NAME}` in the files whose texts SimpleTuner fills from its environment.

    It does so by 4.8.0 in its options and in the image backends; the prompt library arrives as it is.

    Raises:
        UserError: naming the file and the text.
    """
    for name in ("config.json", "multidatabackend.json"):
        for text in _texts(documents[name]):
            if "{env:" in text:
                raise UserError(
                    f"{name}: SimpleTuner would replace {{env:…}} in {text!r} by an environment variable.",
                    fix="Take the {env:…} out of it: a name, a path, an option or the trigger.",
                )


def _trap(prompt: str) -> str | None:
    if not prompt.strip():
        return "it is empty"
    # The JSON loader takes the words for flags and drops the value; other releases fail on it.
    if prompt.strip().lower() in ("true", "false"):
        return "the word alone is read as a switch"
    if "{env:" in prompt:
        return "{env:…} is replaced by an environment variable"
    return None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
