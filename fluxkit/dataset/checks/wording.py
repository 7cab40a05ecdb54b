"""What captions say: fixed traits of the person, which the trigger should learn, and whether they all say the same."""

import re
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from fluxkit.dataset.model import Finding

_COLOUR = (
    "blonde?|brown|black|dark|light|fair|red|auburn|ginger|gr[ae]y|white|silver|chestnut|golden|sandy|jet[- ]black"
)
_PERSON = (
    "m[ae]n|wom[ae]n|person|people|boys?|girls?|guys?|lady|ladies|gentlem[ae]n|male|female|adults?|individual|child"
)
_PEOPLES = (
    "asian|east asian|south asian|caucasian|african|african[- ]american|hispanic|latin[oa]|arab|middle[- ]eastern"
    "|indian|chinese|japanese|korean|vietnamese|european|black|white"
)
_AGES = "young|old|older|elderly|middle[- ]aged|teenage"
_DECADES = r"\d0s|teens|twenties|thirties|forties|fifties|sixties|seventies"
_NOT_HAIR = r"(?!\s*-?(?:clips?|bands?|ties?|brush(?:es)?|pins?|dryers?|nets?|accessor\w+))"
# Only what stays the same from photo to photo: glasses, a beard or make-up may change and belong into captions.
_TRAITS = {
    "hair colour": (
        rf"\b(?:{_COLOUR})(?:[\s,-]+\w+)?[\s-]+hair(?:ed)?\b{_NOT_HAIR}",
        rf"\bhair is (?:{_COLOUR})\b",
        r"\b(?:blonde|brunette|redhead(?:ed)?|bald(?:ing)?)\b",
    ),
    "eye colour": (
        r"\b(?:blue|green|brown|hazel|gr[ae]y|dark|light|amber|black)(?:[\s-]+\w+)?[\s-]+eye[sd]\b",
        r"\beyes are (?:blue|green|brown|hazel|gr[ae]y|dark|light|amber|black)\b",
    ),
    "skin colour": (
        r"\b(?:pale|fair|dark|light|olive|tan|tanned|brown|black|white|freckled)[\s-]+(?:skin(?:ned)?|complexion)\b",
    ),
    "age": (
        r"\b\d{1,2}[\s-]*years?[\s-]*old\b",
        rf"\b(?:{_AGES})[\s,]+(?:\w+\s+)?(?:{_PERSON})\b",
        rf"\bin (?:his|her|their) (?:early |mid[- ]?|late )?(?:{_DECADES})\b",
    ),
    "origin": (rf"\b(?:{_PEOPLES})[\s-]+(?:\w+\s+)?(?:{_PERSON})\b",),
    "features": (
        r"\b(?:freckles|dimples|cheekbones|birthmark|moles?)\b",
        r"\b(?:square|strong|sharp|chiselled|chiseled) jaw(?:line)?\b",
        r"\b(?:round|oval|square|heart-shaped|long|narrow) face\b",
        r"\b(?:big|large|small|pointed|hooked|broad) nose\b",
        r"\b(?:full|thin|plump) lips\b",
        r"\b(?:thick|bushy|thin) eyebrows\b",
    ),
}
_PATTERNS = {name: re.compile("|".join(patterns), re.IGNORECASE) for name, patterns in _TRAITS.items()}
_FEWEST, _MOST_ALIKE = 5, 0.5


def traits(text: str) -> dict[str, str]:
    """The person's fixed traits that a caption names: kind → the words."""
    found = {name: pattern.search(text) for name, pattern in _PATTERNS.items()}
    return {name: match.group() for name, match in found.items() if match}


def trait_findings(path: Path, text: str) -> Iterator[Finding]:
    """Traits in one caption."""
    named = traits(text)
    if named:
        words = ", ".join(f'"{" ".join(said.split())}" ({kind})' for kind, said in named.items())
        message = f"The caption describes the person: {words}. Then these words learn it, and the trigger doesn't."
        fix = "Take it out; describe what changes: clothes, place, light, pose, expression."
        yield Finding("caption.trait", "warning", path, message, fix)


class Wordings:
    """Counts captions that say the same, in a few bytes each."""

    def __init__(self, trigger: str) -> None:
        self._trigger = trigger.casefold()
        self._counts: Counter[bytes] = Counter()

    def add(self, text: str) -> None:
        """Take one caption."""
        words = set(re.findall(r"\w+", text.casefold())) - {self._trigger}
        self._counts[blake2b(" ".join(sorted(words)).encode("utf-8", "replace"), digest_size=8).digest()] += 1

    def findings(self, folder: Path) -> Iterator[Finding]:
        """Whether half of the captions and more use the same words."""
        total = self._counts.total()
        if total < _FEWEST:
            return
        ((_, most),) = self._counts.most_common(1)
        if most > _MOST_ALIKE * total:
            message = f"{most} of {total} captions say the same: they can't tell the LoRA what is not the person."
            fix = 'Describe in each what only that photo shows, or use none: captions = "trigger" under [dataset].'
            yield Finding("caption.alike", "warning", folder, message, fix)
