from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxkit.rendering.settings import RenderRequest


@pytest.fixture
def request_for() -> Callable[..., RenderRequest]:
    """The guide's project, with the changes given."""

    def make(**changes: Any) -> RenderRequest:
        values: dict[str, Any] = {
            "release": "4.8.0",
            "trigger": "behitek",
            "dataset_dir": Path("/photos"),
            "resolutions": (1024, 512),
            "repeats": 1000,
            "captions": "textfile",
            "base": "black-forest-labs/FLUX.1-dev",
            "adapter": "lycoris",
            "profile": "24gb",
            "steps": 10000,
            "checkpoint_every": 1000,
            "validate_every": 1000,
            "seed": 42,
            "learning_rate": 1e-4,
            "validation_prompt": None,
            "prompts": {"one": "behitek on a cliff", "two": "behitek in a library"},
            "user_options": {},
            "cli_options": {},
            "lycoris": {},
            "env": {},
            "cache_dir": Path("/project/cache"),
            "output_dir": Path("/project/output"),
            "config_dir": Path("/project/config"),
            "rehearsal": None,
            "has_cuda": True,
        }
        return RenderRequest(**{**values, **changes})

    return make
