import json
from pathlib import Path

import pytest

from fluxkit.dataset.checks.tokens import (
    Tokenizers,
    estimate,
    find_tokenizers,
    length_findings,
    trigger_token_findings,
)
from fluxkit.sampling import tiny_flux


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_flux._clip_tokenizer().save_pretrained(folder / "tokenizer")
    tiny_flux._t5_tokenizer().save_pretrained(folder / "tokenizer_2")
    return folder


def clip_files(folder: Path) -> None:
    """CLIP's two files as openai/clip-vit has them, with the merges for one word."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["be", "hi", "te", "tek</w>", "behi", "behitek</w>"]
    words = [*letters, *(letter + "</w>" for letter in letters), *pieces, "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    merges = "#version: 0.2\nb e\nh i\nt e\nte k</w>\nbe hi\nbehi tek</w>\n"
    (folder / "tokenizer" / "merges.txt").write_text(merges)


def test_the_base_models_own_tokenizers_count(base: Path) -> None:
    tokenizers = find_tokenizers(str(base))
    assert tokenizers.t5 is not None
    assert tokenizers.clip is not None
    # The tiny FLUX's CLIP has a token a byte.
    assert tokenizers.clip("behitek") == 7
    assert tokenizers.t5("behitek") >= 7


def test_counts_are_those_of_transformers(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizers = find_tokenizers(str(base))
    for name, count in (("tokenizer", tokenizers.clip), ("tokenizer_2", tokenizers.t5)):
        reference = AutoTokenizer.from_pretrained(base / name)
        for text in ("behitek a man", "behitek, café 写真 😀", "  two  spaces "):
            assert count is not None
            assert count(text) == len(reference(text, add_special_tokens=False)["input_ids"])


def test_clip_from_vocabulary_and_merges(tmp_path: Path) -> None:
    clip_files(tmp_path)
    tokenizers = find_tokenizers(str(tmp_path))
    assert tokenizers.t5 is None
    assert tokenizers.clip is not None
    assert tokenizers.clip("behitek") == 1
    assert tokenizers.clip("Behitek  BEHITEK's") == 2 + 2
    assert tokenizers.clip("behi") == 3, "without the end of the word the merges don't apply"


def test_damaged_or_missing_tokenizers_are_none(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_2").mkdir()
    (tmp_path / "tokenizer_2" / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_2" / "spiece.model").write_bytes(b"\x00\x01")
    assert find_tokenizers(str(tmp_path)) == Tokenizers()
    assert find_tokenizers("nobody/nothing") == Tokenizers()
    assert find_tokenizers("/no/such/folder") == Tokenizers()


@pytest.mark.parametrize(("tokens", "code"), [(75, None), (76, "clip"), (511, "clip"), (512, "t5")])
def test_limits_count_start_and_end(tokens: int, code: str | None) -> None:
    tokenizers = Tokenizers(t5=lambda _: tokens, clip=lambda _: tokens)
    found = [finding.code for finding in length_findings(Path("a.txt"), "text", tokenizers)]
    assert found == ([f"caption.too-long-{code}"] if code else [])


def test_without_tokenizers_lengths_are_estimates_and_say_so() -> None:
    (finding,) = length_findings(Path("a.txt"), "behitek " + "word " * 100, Tokenizers())
    assert finding.code == "caption.too-long-clip"
    assert "estimated" in finding.message
    (long,) = length_findings(Path("a.txt"), "behitek " + "word " * 600, Tokenizers())
    assert long.code == "caption.too-long-t5"
    assert estimate("") == 0
    assert estimate("photograph, 写真") == 2 + 1 + 2


def test_a_trigger_of_many_tokens() -> None:
    (many,) = trigger_token_findings("x", Path(), Tokenizers(t5=lambda _: 6, clip=lambda _: 3))
    assert many.code == "trigger.tokens"
    assert "6 tokens for T5" in many.message
    assert "CLIP" not in many.message
    (unknown,) = trigger_token_findings("x", Path(), Tokenizers(t5=lambda _: 5))
    assert unknown.code == "caption.tokens-not-run"
    assert "(CLIP)" in unknown.message


def test_t5_from_its_sentencepiece_model(tmp_path: Path) -> None:
    import sentencepiece

    (tmp_path / "tokenizer_2").mkdir()
    with (tmp_path / "tokenizer_2" / "spiece.model").open("wb") as model:
        sentences = ["behitek a man in the snow", "behitek a man on a beach", "a man and a dog"] * 20
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=model, vocab_size=22, minloglevel=2
        )
    tokenizers = find_tokenizers(str(tmp_path))
    assert tokenizers.clip is None
    assert tokenizers.t5 is not None
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer_2" / "spiece.model"))
    assert tokenizers.t5("behitek a man") == len(reference.encode("behitek a man")) > 3
