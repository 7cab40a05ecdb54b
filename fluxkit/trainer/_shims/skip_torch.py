"""Shim: `SIMPLETUNER_SKIP_TORCH` stays with the command line tool that it is meant for.

Why: `simpletuner train` sets it to start quickly without torch, and the training processes inherit it. There it turns
the helpers that talk to the other processes into no-ops (`helpers/training/multi_process.py`): only the first process
gets the validation prompts, the others skip the validation images, and all wait for each other forever.
Bound to: the releases of the defect `skip-torch` in releases.toml, where several processes train. `train.sh` doesn't
set it. Each process drops what it inherited as it starts; the tool sets it later than that, for itself.
Seen, 2026-11-24, SimpleTuner 4.8.0, 2 CPU processes: without it they hang at the base model's validation images.
"""

import os

MODULES = ()

os.environ.pop("SIMPLETUNER_SKIP_TORCH", None)
