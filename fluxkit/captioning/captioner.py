"""The models that describe pictures: the only module here that imports torch and transformers.

Only transformers' own classes are used; no model's own code is ever run (`trust_remote_code` stays off).
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fluxkit.captioning.models import ModelSpec
from fluxkit.captioning.run import Captioner, Description
from fluxkit.errors import GpuMemoryError, UserError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Florence-2's task word for a sentence or two (https://arxiv.org/abs/2311.06242, "detailed caption"), and the number of
# beams of its model card. `<MORE_DETAILED_CAPTION>` writes a paragraph: more words about the person to take out again.
FLORENCE_TASK = "<DETAILED_CAPTION>"
_FLORENCE_BEAMS = 3
MAX_NEW_TOKENS = 256


def load_captioner(spec: ModelSpec, instruction: str, *, max_new_tokens: int | None = None) -> Captioner:
    """Load a model onto the GPU in bfloat16, or onto the CPU in float32.

    Args:
        spec: which.
        instruction: for chat models.
        max_new_tokens: a description ends there at the latest; None takes `MAX_NEW_TOKENS`.

    Raises:
        UserError: a package is not installed, a file is missing or damaged, or the model can't be asked this way.
        GpuMemoryError: the weights don't fit.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor, Florence2ForConditionalGeneration

    _quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options: dict[str, Any] = {"local_files_only": spec.local, "trust_remote_code": False}
    loader = Florence2ForConditionalGeneration if spec.kind == "florence" else AutoModelForImageTextToText
    with _loading(spec):
        processor = AutoProcessor.from_pretrained(spec.name, **options)
        model = loader.from_pretrained(
            spec.name, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, **options
        )
    try:
        model.requires_grad_(False).eval().to(device)
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(
            f"{spec.name} does not fit into the GPU's memory.",
            fix="Close other programs that use the GPU, or name a smaller model with --model.",
        ) from error
    if spec.kind == "florence":
        return _Florence(model, processor, max_new_tokens or MAX_NEW_TOKENS)
    return _Chat(spec, model, processor, instruction, max_new_tokens or MAX_NEW_TOKENS)


class _Model:
    """What both kinds share: generation, its end, and running out of memory."""

    _echoes = True  # the output begins with the prompt

    def __init__(self, model: Any, processor: Any, max_new_tokens: int) -> None:
        self._model, self._processor, self._max_new_tokens = model, processor, max_new_tokens

    def describe(self, images: "Sequence[Image]") -> list[Description] | None:
        """One description a picture; None when memory ran out."""
        rows = self._generated(images)
        if rows is None:
            # Outside of `except`: there the traceback still holds the tensors.
            _free_memory()
            return None
        texts = self._processor.batch_decode(rows, skip_special_tokens=True)
        return [Description(text, self._ended(row)) for text, row in zip(texts, rows, strict=True)]

    def _generated(self, images: "Sequence[Image]") -> "torch.Tensor | None":
        """Token ids of the descriptions alone, one row a picture, shape (pictures, tokens)."""
        import torch

        try:
            inputs = self._inputs(images).to(self._model.device, dtype=self._model.dtype)
            with torch.inference_mode():
                rows = self._model.generate(**inputs, **self._settings())
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            if "not enough memory" in str(error):  # the CPU's allocator has no class of its own
                return None
            raise
        result: torch.Tensor = rows[:, inputs["input_ids"].shape[1] if self._echoes else 0 :]
        return result

    def _ended(self, row: "torch.Tensor") -> bool:
        """Whether a row came to an end before the limit; there, some models are made to write the end token."""
        tokens = row.tolist()[0 if self._echoes else 1 :]  # a decoder's first token is its start
        ends = self._model.generation_config.eos_token_id
        return len(tokens) < self._max_new_tokens or any(
            token in (ends if isinstance(ends, list) else [ends]) for token in tokens[:-1]
        )

    def _settings(self) -> dict[str, Any]:
        return {"max_new_tokens": self._max_new_tokens, "do_sample": False}

    def _inputs(self, images: "Sequence[Image]") -> Any:
        raise NotImplementedError


class _Florence(_Model):
    """Florence-2: an encoder reads picture and task word, a decoder writes; every prompt is equally long."""

    _echoes = False

    def _inputs(self, images: "Sequence[Image]") -> Any:
        return self._processor(text=[FLORENCE_TASK] * len(images), images=list(images), return_tensors="pt")

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "num_beams": _FLORENCE_BEAMS}


class _Chat(_Model):
    """A model that takes a picture and an instruction through its chat template."""

    def __init__(self, spec: ModelSpec, model: Any, processor: Any, instruction: str, max_new_tokens: int) -> None:
        super().__init__(model, processor, max_new_tokens)
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or not getattr(processor, "chat_template", None):
            raise UserError(
                f"{spec.name} has no chat template: it can't be told what to describe.",
                fix="Use a model that is made for chatting (named -Instruct or -it), or leave --model out.",
            )
        # Rows end where writing begins: a shorter prompt is filled up in front.
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        with _loading(spec):
            content = [{"type": "image"}, {"type": "text", "text": instruction}]
            self._prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        # A template may write the first token itself.
        bos = tokenizer.bos_token
        self._special = not (bos and self._prompt.startswith(bos))

    def _inputs(self, images: "Sequence[Image]") -> Any:
        return self._processor(
            text=[self._prompt] * len(images),
            images=[[image] for image in images],
            padding=True,
            add_special_tokens=self._special,
            return_tensors="pt",
        )


@contextmanager
def _loading(spec: ModelSpec) -> Iterator[None]:
    """What the libraries raise for a folder that is no whole model, as one error with a fix."""
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{spec.name} needs a package that is not installed: {_first_line(error)}",
            fix="Install the extra: pip install 'fluxkit[caption]'; or the package named above.",
        ) from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise _not_loaded(spec, error) from error
    except (SafetensorError, TemplateError) as error:
        raise _not_loaded(spec, error) from error


def _not_loaded(spec: ModelSpec, error: Exception) -> UserError:
    return UserError(
        f"{spec.name} can't be loaded: {_first_line(error)}",
        fix="Delete a damaged download and let it be downloaded again, or name another model with --model.",
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _free_memory() -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quiet() -> None:
    """Transformers' bars and hints mean nothing to a photographer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
