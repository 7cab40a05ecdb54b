"""What `fluxkit.toml` may hold: the user's intent, and nothing of SimpleTuner's hundreds of options.

Values are taken strictly (`steps = "10"` is an error, not 10), so that a slip shows where it was made.
"""

import tomllib
from functools import cache
from typing import Annotated, Any, Literal

from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fluxkit.resources import resource

FLUX_DEV = "black-forest-labs/FLUX.1-dev"

Name = Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")]
Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
# FLUX packs latents of 8 x 8 pixels two by two, so both edges of an image are multiples of 16.
Edge = Annotated[int, Field(ge=64, le=4096, multiple_of=16)]
# 2**31 - 1: what every seed consumer on the way (numpy's legacy generator is the narrowest) can take, offsets included.
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1)]


@cache
def default_simpletuner() -> str:
    """The release to pin: the newest one that the profiles' memory and speed were measured with on a GPU."""
    data = tomllib.loads(resource("third_party", "simpletuner", "releases.toml").read_text(encoding="utf-8"))
    measured: list[str] = [entry["version"] for entry in data["release"] if entry.get("tested", {}).get("gpu_measured")]
    return max(measured, key=Version)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProjectSection(_Section):
    """`[project]`: who the adapter is of.

    Args:
        name: names the outputs; letters, digits, `_`, `.` and `-`.
        trigger: the unique word that stands for the subject in captions and prompts.
        subject: the everyday word for it ("man", "woman", "dog").
    """

    name: Name
    trigger: Text
    subject: Text = "person"


class DatasetSection(_Section):
    """`[dataset]`: the photos.

    Args:
        path: folder, relative to the project's or absolute; `~` is the home folder.
        resolutions: edges in pixels of the square crops to train at, each once.
        repeats: how often an epoch shows each photo again, beyond the first time.
        captions: `textfile` (a `.txt` beside each photo) or `trigger` (the trigger alone).
        face_model: a YuNet ONNX file to find faces with, relative to the project's folder or absolute; None takes the
            cascades that come with OpenCV.
    """

    path: Text = "dataset"
    resolutions: tuple[Edge, ...] = Field(default=(1024, 512), min_length=1, strict=False)
    repeats: int = Field(default=1000, ge=0)
    captions: Literal["textfile", "trigger"] = "textfile"
    face_model: Text | None = None

    @field_validator("resolutions")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("each resolution may be listed once")
        return value


class ModelSection(_Section):
    """`[model]`: what is trained on.

    Args:
        base: a Hub id or a local folder in diffusers format.
        revision: a branch, tag or commit of the Hub id.
        adapter: `lycoris` (LoKr unless `[lycoris]` says otherwise) or `standard` (a PEFT LoRA).
    """

    base: Text = FLUX_DEV
    revision: Text | None = None
    adapter: Literal["lycoris", "standard"] = "lycoris"


class TrainSection(_Section):
    """`[train]`: how long and how.

    Args:
        profile: the VRAM class, a file in `profiles/`.
        steps: optimizer steps of the whole run.
        checkpoint_every: steps between two checkpoints.
        validate_every: steps between two rounds of validation images.
        seed: of the training's random numbers and of its validation images.
        learning_rate: the highest one; the schedule lowers it.
        validation_prompt: None takes the project's first prompt.
        options: SimpleTuner options by any name they ever had; checked against the pinned release before launch.
    """

    profile: Text = "24gb"
    steps: Count = 10_000
    checkpoint_every: Count = 1_000
    validate_every: Count = 1_000
    seed: Seed = 42
    learning_rate: float = Field(default=1e-4, gt=0, le=1, allow_inf_nan=False)
    validation_prompt: Text | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class SimpleTunerSection(_Section):
    """`[simpletuner]`: which trainer, and where it comes from.

    Args:
        version: the release that is pinned.
        source: `pypi` (the package index), `git` (its repository) or `path` (a checkout on this machine).
        platform: which build of torch; `auto` looks for a GPU.
        mirror: with `source = "git"` the address or folder of a clone, with `"pypi"` the address of a package index.
        path: the checkout, with `source = "path"`; relative to the project's folder or absolute.
    """

    version: Text = Field(default_factory=default_simpletuner)
    source: Literal["pypi", "git", "path"] = "pypi"
    platform: Literal["auto", "cpu", "cuda"] = "auto"
    mirror: Text | None = None
    path: Text | None = None

    @model_validator(mode="after")
    def _path_for_path(self) -> "SimpleTunerSection":
        if self.source == "path" and self.path is None:
            raise ValueError('source = "path" needs path = "/folder/of/SimpleTuner"')
        return self


class SampleSection(_Section):
    """`[sample]`: the images made with the trained adapter.

    Args:
        num_inference_steps: denoising steps an image.
        guidance_scale: FLUX's distilled guidance.
        width: in pixels, a multiple of 16.
        height: in pixels, a multiple of 16.
        seeds_per_prompt: images a prompt.
        quantize: precision of the transformer's weights; `auto` is the fastest that the GPU does well.
        base_seed: the i-th image of a prompt has the seed `base_seed + i`.
        strength: how strongly the adapter is applied; 1.0 is as trained.
        batch_size: images denoised at once; `auto` fits it to the GPU's memory.
    """

    num_inference_steps: int = Field(default=20, ge=1, le=1000)
    guidance_scale: float = Field(default=3.0, ge=0, le=100, allow_inf_nan=False)
    width: Edge = 1024
    height: Edge = 1024
    seeds_per_prompt: int = Field(default=30, ge=1, le=100_000)
    quantize: Literal["auto", "int8", "int8-dynamic", "fp8", "nf4", "none"] = "auto"
    base_seed: Seed = 42
    strength: float = Field(default=1.0, ge=-10, le=10, allow_inf_nan=False)
    batch_size: Literal["auto"] | Count = "auto"


class ProjectConfig(_Section):
    """The whole `fluxkit.toml`; `[lycoris]` is LyCORIS's own settings, `[env]` goes to the trainer's process."""

    project: ProjectSection
    dataset: DatasetSection = Field(default_factory=DatasetSection)
    model: ModelSection = Field(default_factory=ModelSection)
    train: TrainSection = Field(default_factory=TrainSection)
    lycoris: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    simpletuner: SimpleTunerSection = Field(default_factory=SimpleTunerSection)
    sample: SampleSection = Field(default_factory=SampleSection)
