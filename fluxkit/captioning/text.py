"""From what a model says to a caption: one line of plain text, the trigger first."""

import re
import unicodedata

# T5 reads 512 tokens, about four letters each.
LONGEST = 2000
_MOST = 20_000

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?(?:s|pad|unk|mask|image|loc_\d+|poly)>", re.IGNORECASE)
_MARKDOWN = re.compile(r"^(?:\s*(?:[-*#>]+|\d+[.)])\s+)+|\*\*|__|`", re.MULTILINE)
# What models begin with, and what says nothing about the picture. Each is taken off once, in this order.
_OPENINGS = (
    re.compile(r"^(?:sure|certainly|of course|okay|ok)\b[^:.!\n]{0,80}[:.!]\s*", re.IGNORECASE),
    re.compile(r"^here(?:'s| is)\b[^:\n]{0,80}:\s*", re.IGNORECASE),
    re.compile(r"^(?:caption|description)\s*:\s*", re.IGNORECASE),
    re.compile(
        r"^(?:in\s+)?(?:the|this)\s+(?:image|picture|photo(?:graph)?)\s*,?\s*"
        r"(?:(?:shows|depicts|features|captures|displays|portrays|presents|is\s+of|is)\s+"
        r"|(?:we|i|you)\s+can\s+see\s+|there\s+(?:is|are)\s+)",
        re.IGNORECASE,
    ),
)
# Words that have a capital only because they began the sentence.
_SMALL = re.compile(r"^(?:A|An|The|In|On|At|Two|Three|He|She|They|There|This|Close|Closeup|Portrait|Photo)\b")


def caption_text(said: str, trigger: str, *, complete: bool = True) -> str:
    """The caption that a model's words become.

    Args:
        said: the words, whatever they hold.
        trigger: goes in front, once.
        complete: whether the model came to an end by itself; else the last, unfinished sentence is cut off.

    Returns:
        One line; empty when the words hold no letter beside the trigger.
    """
    text = one_line(_MARKDOWN.sub(" ", _TOKEN.sub(" ", _THINKING.sub(" ", said[:_MOST])))).strip("\"'“”„«» ")
    for opening in _OPENINGS:
        shorter = opening.sub("", text, count=1)
        text = shorter or text
    text = without_trigger(text, trigger)
    if not complete or len(text) > LONGEST:
        text = _whole_sentences(text[:LONGEST])
    if not any(letter.isalpha() for letter in text):
        return ""
    if _SMALL.match(text):
        text = text[0].lower() + text[1:]
    return f"{trigger} {text}"


def one_line(text: str) -> str:
    """`text` on one line: control characters and whatever is no character become spaces, spaces become one."""
    text = unicodedata.normalize("NFC", text)
    plain = (" " if _is_noise(letter) else letter for letter in text)
    return " ".join("".join(plain).split())


def with_trigger_first(line: str, trigger: str) -> str:
    """`line` beginning with the trigger; a trigger that stands there already is not doubled."""
    rest = without_trigger(line, trigger)
    if line.startswith(trigger) and not line[len(trigger) :][:1].isalnum():
        return line
    return f"{trigger} {rest}".rstrip()


def without_trigger(text: str, trigger: str) -> str:
    """`text` without triggers at its beginning, in whatever case."""
    pattern = re.compile(rf"^(?:{re.escape(trigger)}(?!\w)[\s,.:;-]*)+", re.IGNORECASE)
    return pattern.sub("", text)


def _is_noise(letter: str) -> bool:
    # The joiner inside emoji stays; the replacement character stands for bytes that were none.
    return letter == "\ufffd" or (letter != "\u200d" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn"))


def _whole_sentences(text: str) -> str:
    """Up to the end of the last whole sentence; all but the last word where there is none."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else text.rpartition(" ")[0] or text
