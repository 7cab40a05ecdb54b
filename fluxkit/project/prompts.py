"""Prompts are data: the trigger is put in by plain replacement, and nothing else in them changes."""

import re

PLACEHOLDER = "{trigger}"
# A prompt's name becomes a file name, a JSON key and part of SimpleTuner's validation image names.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def with_trigger(text: str, trigger: str) -> str:
    """Put the trigger where `{trigger}` stands, and in front of a text that doesn't hold it as a word.

    Applying it twice changes nothing more. Never `str.format` or Jinja: a prompt may hold `{{`, quotes,
    newlines and emoji.
    """
    filled = text.replace(PLACEHOLDER, trigger)
    if holds_word(filled, trigger):
        return filled
    return f"{trigger} {filled}" if filled else trigger


def holds_word(text: str, word: str) -> bool:
    """Whether `word` stands in `text` by itself, not as a part of a longer word; case counts."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None
