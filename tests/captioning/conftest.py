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


def pieces() -> list[str]:
    """Special tokens and one token a byte: any text goes in."""
    from tokenizers.pre_tokenizers import ByteLevel

    return [*SPECIAL, *sorted(ByteLevel.alphabet())]


def only_words(model: Any, vocabulary: int = 0) -> None:
    """Keep the random model from writing anything but letters and spaces, so that its words make a caption."""
    wanted = {*"abcdefghijklmnopqrstuvwxyz", "Ġ", "</s>"}
    unwanted = [number for number, piece in enumerate(pieces()) if piece not in wanted]
    model.generation_config.suppress_tokens = [*unwanted, *range(len(pieces()), vocabulary)]


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
    import torch
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
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        image_token_id=tokenizer.image_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Florence2ForConditionalGeneration(config).eval()
        for parameter in model.parameters():  # differences between pictures that survive to the words
            parameter.data *= 2.0
    only_words(model)
    processor = Florence2Processor(image_processor=images, tokenizer=tokenizer, num_additional_image_tokens=0)
    return save(tmp_path_factory.mktemp("models") / "florence", model, processor)


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LLaVA of 50,000 weights: an image-text-to-text model with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    raw = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces())}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    processor = LlavaProcessor(
        image_processor=image_processor(32),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=tokenizer.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LlavaForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            parameter.data *= 3.0
    only_words(model)
    return save(tmp_path_factory.mktemp("models") / "llava", model, processor)


@pytest.fixture(scope="session")
def tiny_idefics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Idefics 3: it cuts a picture into pieces by its shape, so prompts of a batch differ in length."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
        PreTrainedTokenizerFast,
    )

    marks = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    marks += [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    vocab = {piece: number for number, piece in enumerate([*pieces(), *marks])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[*marks, "<image>"],
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE)
    config = Idefics3Config(
        image_token_id=vocab["<image>"],
        scale_factor=2,
        pad_token_id=1,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = Idefics3ForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            parameter.data *= 3.0
    only_words(model, len(vocab))
    return save(tmp_path_factory.mktemp("models") / "idefics", model, processor)
