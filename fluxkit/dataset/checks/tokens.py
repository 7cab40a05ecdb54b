"""How many tokens a text is to FLUX's two text encoders: counted with the base model's own tokenizers, else estimated.

FLUX.1-dev reads the first 512 tokens with T5 and the first 77 with CLIP, start and end tokens included; the rest is cut
off without a word.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxkit.dataset.model import Finding
from fluxkit.hub import local_file

T5_LIMIT, CLIP_LIMIT = 512, 77
# A made-up word of 7 letters is 3 or 4 pieces; a longer row is harder to learn as one thing.
_MOST_TRIGGER_TOKENS = 5
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_END = "<|endoftext|>"
Count = Callable[[str], int]


@dataclass(frozen=True)
class Tokenizers:
    """Counts tokens without start and end tokens; None where the tokenizer is not on this machine."""

    t5: Count | None = None
    clip: Count | None = None


def find_tokenizers(base: str, revision: str | None = None) -> Tokenizers:
    """The tokenizers of a base model, from its folder or the Hub's cache on this machine; nothing is downloaded.

    Args:
        base: a Hub id or a local folder in diffusers format.
        revision: of the Hub id.
    """

    def file(name: str) -> Path | None:
        return local_file(base, name, revision)

    return Tokenizers(
        _fast(file("tokenizer_2/tokenizer.json")) or _sentencepiece(file("tokenizer_2/spiece.model")),
        _fast(file("tokenizer/tokenizer.json")) or _clip(file("tokenizer/vocab.json"), file("tokenizer/merges.txt")),
    )


def length_findings(path: Path, text: str, tokenizers: Tokenizers) -> Iterator[Finding]:
    """Whether the encoders see the end of a caption."""
    t5, label = _counted(tokenizers.t5, text)
    if t5 + 1 > T5_LIMIT:
        message = f"The caption is {label}{t5 + 1} tokens long for T5: what is behind {T5_LIMIT} is never seen."
        yield Finding("caption.too-long-t5", "warning", path, message, "Shorten it.")
        return
    clip, label = _counted(tokenizers.clip, text)
    if clip + 2 > CLIP_LIMIT:
        message = f"The caption is {label}{clip + 2} tokens long for CLIP, which sees {CLIP_LIMIT}; T5 sees all of it."
        fix = "Put what matters first; a shorter caption is seen whole by both."
        yield Finding("caption.too-long-clip", "info", path, message, fix)


def trigger_token_findings(trigger: str, folder: Path, tokenizers: Tokenizers) -> Iterator[Finding]:
    """Into how many tokens the trigger splits."""
    counts = {"T5": tokenizers.t5, "CLIP": tokenizers.clip}
    missing = [name for name, count in counts.items() if count is None]
    if missing:
        message = (
            f"The base model's tokenizers are not on this machine ({' and '.join(missing)}): lengths of captions are "
            "estimated, and into how many tokens the trigger splits is not known."
        )
        fix = "Run `fluxkit validate` again when the base model is downloaded."
        yield Finding("caption.tokens-not-run", "info", folder, message, fix)
    many = {name: count(trigger) for name, count in counts.items() if count and count(trigger) > _MOST_TRIGGER_TOKENS}
    if many:
        split = " and ".join(f"{count} tokens for {name}" for name, count in many.items())
        message = f'The trigger "{trigger}" splits into {split}: the LoRA has to learn them as one.'
        yield Finding("trigger.tokens", "warning", folder, message, "A shorter made-up word is learnt more easily.")


def estimate(text: str) -> int:
    """Tokens of a text without a tokenizer: one for each six letters of a word begun, and each other character."""
    words = re.findall(r"[A-Za-z]+", text)
    others = len(re.sub(r"[A-Za-z\s]+", "", text))
    return sum(-(-len(word) // 6) for word in words) + others


def _counted(count: Count | None, text: str) -> tuple[int, str]:
    return (estimate(text), "about (estimated) ") if count is None else (count(text), "")


def _fast(file: Path | None) -> Count | None:
    from tokenizers import Tokenizer

    if file is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # a damaged file raises a bare Exception: the same as none
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _count_with(tokenizer)


def _clip(vocabulary: Path | None, merges: Path | None) -> Count | None:
    """CLIP's tokenizer from the two files of its first release (openai/CLIP `simple_tokenizer.py`)."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if vocabulary is None or merges is None:
        return None
    try:
        bpe = models.BPE.from_file(str(vocabulary), str(merges), end_of_word_suffix="</w>", unk_token=_CLIP_END)
    except Exception:  # as above
        return None
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _count_with(tokenizer)


def _count_with(tokenizer: Any) -> Count:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _sentencepiece(file: Path | None) -> Count | None:
    if file is None:
        return None
    try:
        import sentencepiece
    except ImportError:
        return None
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except Exception:  # as above
        return None
    return lambda text: len(processor.encode(text))
