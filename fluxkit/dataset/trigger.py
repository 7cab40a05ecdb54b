"""Is the trigger a word that the model doesn't know yet?"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from fluxkit.dataset.model import Finding
from fluxkit.errors import UserError
from fluxkit.files import cache_dir, write_json

SHORTEST, LONGEST = 3, 16
# Zipf frequency: log10 of occurrences in a billion words. wordfreq's small lists begin at 3; "flower" has 4.4 in
# English, and 4 and more is what every speaker uses. Between them are rare words, names and abbreviations.
COMMON_ZIPF = 4.0

# The languages of wordfreq's small lists that a person would look for by name.
_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fil": "Filipino",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "mk": "Macedonian",
    "ms": "Malay", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sh": "Serbo-Croatian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "ta": "Tamil",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_FIX = 'Change [project] trigger (and the captions) to a made-up word such as "behitek" or "hieunv3".'


def trigger_findings(trigger: str, where: Path) -> Iterator[Finding]:
    """What is wrong with a trigger.

    Args:
        trigger: the word.
        where: the file or folder to name in the findings.
    """
    if any(character.isspace() for character in trigger):
        yield Finding("trigger.spaces", "error", where, f"The trigger {trigger!r} must be one word, no spaces.", _FIX)
        return
    if not trigger.isalnum() or not any(character.isalpha() for character in trigger):
        message = f'The trigger "{trigger}" must consist of letters and digits, with at least one letter.'
        yield Finding("trigger.characters", "error", where, message, _FIX)
        return
    if not trigger.isascii():
        message = f'The trigger "{trigger}" has letters beyond a–z, which the text encoder may not know.'
        yield Finding("trigger.not-ascii", "warning", where, message, _FIX)
    if len(trigger) < SHORTEST:
        message = f'The trigger "{trigger}" is too short: the text encoder knows every word of 1 or 2 letters.'
        yield Finding("trigger.short", "error", where, message, _FIX)
    if len(trigger) > LONGEST:
        message = f'The trigger "{trigger}" is long ({len(trigger)} letters) and takes much of every prompt.'
        yield Finding("trigger.long", "warning", where, message, _FIX)
    yield from _dictionary_findings(trigger, where)


def word_languages(word: str) -> dict[str, float]:
    """The languages that `word` is a word of, most frequent first, with its Zipf frequency in each.

    The answer is remembered in the user's cache folder, for wordfreq takes as long to ask as all else that `train` does
    before it launches the trainer.
    """
    key = hashlib.sha256(f"{version('wordfreq')}:{word}".encode("utf-8", "replace")).hexdigest()[:32]
    remembered = cache_dir() / "words" / f"{key}.json"
    with suppress(OSError, ValueError, AttributeError, TypeError):
        known = json.loads(remembered.read_text(encoding="utf-8"))
        return {str(language): float(zipf) for language, zipf in known.items()}
    found = _look_up(word)
    with suppress(UserError, OSError):
        write_json(remembered, found)
    return found


def _look_up(word: str) -> dict[str, float]:
    from wordfreq import available_languages, get_frequency_dict, get_frequency_list

    # The dictionaries themselves: the lookup functions want tokenizers for Chinese, Japanese and Korean.
    word = word.casefold()
    found = {}
    for language in available_languages("small"):
        frequency = get_frequency_dict(language, wordlist="small").get(word, 0.0)
        if frequency > 0:
            found[language] = round(math.log10(frequency) + 9, 2)
        # It would keep all 42 lists: 185 MB.
        get_frequency_dict.cache_clear()
        get_frequency_list.cache_clear()
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _dictionary_findings(trigger: str, where: Path) -> Iterator[Finding]:
    languages = word_languages(trigger)
    if not languages:
        return
    names = ", ".join(_LANGUAGES.get(code, code) for code in list(languages)[:3])
    if max(languages.values()) >= COMMON_ZIPF:
        message = f'The trigger "{trigger}" is a common word ({names}): the model already means something by it.'
        yield Finding("trigger.dictionary", "error", where, message, _FIX)
    else:
        message = f'The trigger "{trigger}" is a rare word, a name or an abbreviation ({names}).'
        yield Finding("trigger.dictionary", "warning", where, message, _FIX)
