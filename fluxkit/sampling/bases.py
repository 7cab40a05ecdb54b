"""The base models that fluxkit makes images with, and what each is made for.

FLUX.1 [schnell] is distilled to 1 to 4 steps, takes no guidance and was trained with 256 T5 tokens; FLUX.1 Krea [dev]
recommends 28 to 32 steps and guidance 3.5 to 5.0 (their model cards).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fluxkit.errors import UserError
from fluxkit.hub import transformer_config


@dataclass(frozen=True)
class BaseModel:
    """What a base model is made for.

    Args:
        name: for people.
        num_inference_steps: a good number of denoising steps.
        guidance_scale: a good distilled guidance; 0 where the model takes none.
        max_sequence_length: T5 tokens.
    """

    name: str
    num_inference_steps: int
    guidance_scale: float
    max_sequence_length: int

    @property
    def guided(self) -> bool:
        """Whether the model takes a guidance scale."""
        return self.guidance_scale > 0


DEV = BaseModel("FLUX.1 [dev]", 20, 3.0, 512)
KREA = BaseModel("FLUX.1 Krea [dev]", 28, 4.5, 512)
SCHNELL = BaseModel("FLUX.1 [schnell]", 4, 0.0, 256)


def base_model(base: str | Path, revision: str | None = None) -> BaseModel:
    """What a base is made for: by its transformer's config where it is on this machine, else by its name.

    Args:
        base: Hub id or local folder in diffusers format.
        revision: the Hub revision.
    """
    config = transformer_config(str(base), revision) or {}
    name = Path(str(base)).name.lower()
    return _by_facts(config, name)


@contextmanager
def explain_damage(base: str) -> Iterator[None]:
    """What the libraries raise for a folder that is no whole model, as one error with a fix.

    Raises:
        UserError: the base can't be loaded.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(
            f"The base model {base} can't be loaded: {error}",
            fix="Check [model] base; delete a damaged download and let it be downloaded again.",
        ) from error


def _by_facts(config: Mapping[str, object], name: str) -> BaseModel:
    guided = config.get("guidance_embeds", "schnell" not in name)
    if not guided:
        return SCHNELL
    return KREA if "krea" in name else DEV
