"""A run: everything that a variant works with."""

import argparse
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.budget import Budget, begin_budget
from benchmarks.speed.flux import Flux
from benchmarks.speed.pipeline import FULL, TINY, Pipeline, Setting, make_pipeline
from benchmarks.speed.results import Results, measured


@dataclass
class Findings:
    """What variants find that later ones are compared with.

    Args:
        guide_seconds: a picture takes the guide's way; NaN if it was not measured.
        rates: operations a second of the products, by kind.
        reference: diffusers' packed latents on the CPU, and their picture, by seed.
    """

    guide_seconds: float = math.nan
    rates: dict[str, float] = field(default_factory=dict)
    reference: dict[int, tuple[torch.Tensor, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a variant is given.

    Args:
        setting: what pictures it makes.
        flux: the transformer's sizes and weights.
        pipeline: makes the pictures.
        findings: of the variants before it.
        results: where its own go.
        budget: its time.
        work: a folder for pictures, of which only the time counts.
    """

    setting: Setting
    flux: Flux
    pipeline: Pipeline
    findings: Findings
    results: Results
    budget: Budget
    work: Path

    def record(self, name: str, **facts: Any) -> None:
        """One line of results."""
        self.results.record(name, **facts)


def make_run(options: argparse.Namespace) -> Run:
    """A run as the command line wants it; goes on with what a process before this one has found."""
    results = Results(options.out, options.label)
    budget = begin_budget(results, options.budget, tiny=options.tiny)
    results.folder.mkdir(parents=True, exist_ok=True)
    findings = Findings(*measured(results.file)) if budget.tried else Findings()
    setting = TINY if options.tiny else FULL
    work = Path(tempfile.mkdtemp(prefix="fluxkit-sampling-"))
    pipeline, flux = make_pipeline(setting, work)
    return Run(setting, flux, pipeline, findings, results, budget, work)


def encode(run: Run) -> None:
    """The prompt's embeddings, which all variants but the guide's work with."""
    run.record("encode", seconds=run.pipeline.encode())


def drop_encoders(run: Run) -> None:
    """Memory without the text encoders, which only the guide's way needs."""
    run.pipeline.drop_encoders()
