"""The nearest known name, for errors that say what was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, or None when nothing is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean "steps"?`, or nothing when nothing is close."""
    match = nearest(word, known)
    return f' Did you mean "{match}"?' if match else ""
