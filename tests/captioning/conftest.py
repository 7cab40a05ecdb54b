"""Tiny models with random weights, of the real classes, in the real files; they write words of small letters."""

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<image>")
TEXT_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}


def pieces() -> list[str]:
    """Special tokens and one token a byte: any text goes in."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*SPECIAL, *sorted(ByteLevel.alphabet())]


def only_words(model: Any, vocabulary: int = 0) -> None:
    """Keep the random model from writing anything but letters and spaces, so that its words make a caption."""
    wanted = {*"abcdefghijklmnopqrstuvwxyz", "Ġ", "</s>"}
    unwanted = [number for number, piece in enumerate(pieces()) if piece not in wanted]
    model.generation_config.suppress_tokens = [*unwanted, *range(len(pieces()), vocabulary)]


def byte_tokenizer(*more: str, **special: Any) -> Any:
    """A fast tokenizer with a token a byte and `more`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate([*pieces(), *more])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", **special
    )


def transformer(**more: int) -> dict[str, int]:
    """The sizes that the vision and the text half have in common."""
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def random_model(model_type: Any, config: Any, *, seed: int, scale: float, vocabulary: int = 0) -> Any:
    """A model with its weights times `scale`: differences between pictures then survive to the words."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_type(config).eval()
        for parameter in model.parameters():
            parameter.data *= scale
    only_words(model, vocabulary)
    return model


def image_processor(size: int, **options: Any) -> Any:
    from transformers import CLIPImageProcessorPil

    square = {"height": size, "width": size}
    return CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False, **options)


def save(folder: Path, model: Any, processor: Any) -> Path:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)  # threads cost these tiny models more than they bring
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_florence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Florence-2 of 100,000 weights: four vision stages, a BART with a layer each way."""
    from transformers import BartTokenizer, Florence2Config, Florence2ForConditionalGeneration, Florence2Processor

    tokenizer = BartTokenizer(
        vocab={piece: number for number, piece in enumerate([*pieces(), "<mask>"])},
        merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )
    images = image_processor(64)
    images.image_seq_length = 5  # 2 × 2 patches and their mean
    config = Florence2Config(
        vision_config={
            "model_type": "florence_vision",
            "depths": (1, 1, 1, 1),
            "embed_dim": (8, 16, 16, 32),
            "num_heads": (1, 2, 2, 4),
            "num_groups": (1, 2, 2, 4),
            "window_size": 4,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 256,
            "init_std": 0.5,
            **TEXT_IDS,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        image_token_id=tokenizer.image_token_id,
    )
    model = random_model(Florence2ForConditionalGeneration, config, seed=0, scale=2.0)
    processor = Florence2Processor(image_processor=images, tokenizer=tokenizer, num_additional_image_tokens=0)
    return save(tmp_path_factory.mktemp("models") / "florence", model, processor)


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA of 50,000 weights: an image-text-to-text model with a chat template."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = byte_tokenizer(extra_special_tokens={"image_token": "<image>"})
    processor = LlavaProcessor(
        image_processor=image_processor(32),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**transformer(image_size=32, patch_size=8, projection_dim=32)),
        text_config=LlamaConfig(
            **transformer(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=2048, **TEXT_IDS)
        ),
        image_token_index=tokenizer.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = random_model(LlavaForConditionalGeneration, config, seed=1, scale=3.0)
    return save(tmp_path_factory.mktemp("models") / "llava", model, processor)


@pytest.fixture(scope="session")
def tiny_idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Idefics 3: it cuts a picture into pieces by its shape, so prompts of a batch differ in length."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    marks = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    marks += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = byte_tokenizer(*marks, unk_token="<unk>", additional_special_tokens=[*marks, "<image>"])
    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)
    config = Idefics3Config(
        image_token_id=pieces().index("<image>"),
        scale_factor=2,
        pad_token_id=1,
        vision_config=transformer(num_hidden_layers=1, image_size=32, patch_size=8),
        text_config={
            "model_type": "llama",
            **transformer(vocab_size=len(tokenizer), num_key_value_heads=2, **TEXT_IDS),
        },
    )
    model = random_model(Idefics3ForConditionalGeneration, config, seed=2, scale=3.0, vocabulary=len(tokenizer))
    return save(tmp_path_factory.mktemp("models") / "idefics", model, processor)
