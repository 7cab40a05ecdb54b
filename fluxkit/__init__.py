"""From a folder of photos to a FLUX.1-dev LoRA and a wall of portraits."""

__version__ = "0.1.0"
