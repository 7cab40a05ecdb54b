"""Measure candidates for the VRAM profiles with the real SimpleTuner on a full-size FLUX.1-dev of random weights.

    python benchmarks/profiles.py --class 16gb                      # every candidate of a class
    python benchmarks/profiles.py --class 24gb --candidate guide --candidate int8-quanto-b2
    python benchmarks/profiles.py --class 12gb --candidate nf4 --cold --write
    python benchmarks/profiles.py --report                          # the table in docs/profiles.md, from the results

PyTorch's allocator is capped at what a card of the class has; a candidate that runs out of memory is a result too. Each
result is a line in --results, kept as soon as it is there; a candidate that was measured on this card with these
settings is not measured again. The base model (33 GB) is made once, in --work; VAE and text caches are shared by the
candidates unless --cold is given, which the writing of a profile needs. --rehearse takes a tiny model and no GPU: it
proves the way, and measures nothing.
"""

import argparse
import datetime as dt
import importlib.util
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.profile_tables import (
    Candidate,
    Result,
    append_result,
    load_candidates,
    read_results,
    result_of,
    table,
    write_measurement,
    write_report,
)
from fluxkit.commands.assemble import ready_environment
from fluxkit.commands.measuring import measure_project
from fluxkit.console import Mute, Output
from fluxkit.dataset.demo import make_demo_dataset
from fluxkit.errors import FluxkitError, UserError
from fluxkit.files import write_text
from fluxkit.hardware import gpus, training_card
from fluxkit.process import stream
from fluxkit.project.config import default_simpletuner
from fluxkit.project.load import Project, load_project
from fluxkit.rendering.settings import Rehearsal
from fluxkit.resources import resource
from fluxkit.sampling.tiny_flux import make_tiny_flux
from fluxkit.trainer.cached import Environment, python_of
from fluxkit.trainer.releases import find_release

HERE = Path(__file__).resolve().parent
REPORT = HERE.parent / "docs" / "profiles.md"
TRIGGER = "fxkbench"


def main(arguments: argparse.Namespace, out: Output) -> int:
    """Measure what was asked for; return the exit code."""
    candidates = _chosen(load_candidates(arguments.candidates), arguments)
    if not arguments.report or arguments.vram:
        project, environment = _project(arguments, out)
        for candidate in candidates:
            _measure(candidate, project, environment, arguments, out)
    results = read_results(arguments.results)
    out.result(table(results))
    if arguments.report:
        write_report(REPORT, results)
    if arguments.write:
        return _write(candidates, results, out)
    return 0


def _chosen(candidates: list[Candidate], arguments: argparse.Namespace) -> list[Candidate]:
    chosen = [
        one
        for one in candidates
        if (not arguments.vram or one.vram in arguments.vram)
        and (not arguments.candidate or one.settings.name in arguments.candidate)
    ]
    if not chosen:
        names = ", ".join(f"{one.vram}/{one.settings.name}" for one in candidates)
        raise UserError("No candidate has that class and name.", fix=f"There are: {names}.")
    return chosen


def _project(arguments: argparse.Namespace, out: Output) -> tuple[Project, Environment | None]:
    """A project with drawn pictures, on the full-size base, and the trainer's environment."""
    root: Path = arguments.work / "project"
    if not (root / "fluxkit.toml").is_file():
        make_demo_dataset(root / "dataset", TRIGGER, "person")
        version = find_release(arguments.release).version if arguments.release else default_simpletuner()
        # Not by `fluxkit init`, which looks words up in libraries that a borrowed machine may lack.
        text = f'[project]\nname = "bench"\ntrigger = "{TRIGGER}"\n\n[simpletuner]\nversion = "{version}"\n'
        write_text(root / "fluxkit.toml", text)
        write_text(root / "prompts.toml", '[prompts]\nportrait = "{trigger} a portrait of a person, soft light"\n')
    project = load_project(root)
    environment = _environment(arguments, project, out)
    if not arguments.rehearse:
        python = environment.python if environment else ready_environment(project).python
        base = _base(arguments.work / "flux", python)
        model = project.config.model.model_copy(update={"base": str(base)})
        project = replace(project, config=project.config.model_copy(update={"model": model}))
    return project, environment


def _environment(arguments: argparse.Namespace, project: Project, out: Output) -> Environment | None:
    """The one that was named, or the project's own, installed where it is missing."""
    if arguments.environment is None:
        from fluxkit.commands.install import install  # it wants uv, which a borrowed machine may lack

        install(project.root, python=None, out=Mute(verbosity=out.verbosity))
        return None
    root = arguments.environment.absolute()
    release = find_release(project.config.simpletuner.version)
    return Environment(root, python_of(root), release, "cuda", "")


def _base(folder: Path, python: Path) -> Path:
    """The full-size FLUX.1-dev, written by whichever Python has diffusers: fluxkit's own or the trainer's."""
    if not (folder / "complete").is_file():
        own = all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "transformers"))
        argv = [sys.executable if own else python, HERE / "full_flux.py", folder]
        env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        code = stream(argv, cwd=HERE.parent, env=env, on_line=print, log=folder.parent / "full_flux.log")
        if code:
            raise UserError("The full-size base could not be made.", fix=f"See {folder.parent / 'full_flux.log'}.")
        (folder / "complete").touch()
    return folder / "base"


def _measure(
    candidate: Candidate,
    project: Project,
    environment: Environment | None,
    arguments: argparse.Namespace,
    out: Output,
) -> None:
    found = gpus()
    gpu = found[training_card()].name if found else ""
    name = f"{candidate.vram}/{candidate.settings.name}"
    known = {(one.vram, one.name, one.digest, one.gpu) for one in read_results(arguments.results)}
    if (candidate.vram, candidate.settings.name, candidate.digest, gpu) in known and not arguments.again:
        out.say(f"{name}: measured already")
        return
    out.say(f"{name}: {candidate.why}")
    if arguments.cold:
        for cache in ("vae", "text"):
            shutil.rmtree(project.cache_dir / cache, ignore_errors=True)
    started = time.monotonic()
    more = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "gpu": gpu,
        "simpletuner": find_release(project.config.simpletuner.version).version,
        "cap_gib": candidate.cap_gib,
    }
    run = measure_project(
        project,
        arguments.work / "runs" / name,
        steps=arguments.steps,
        option=arguments.option,
        cap_gib=candidate.cap_gib,
        rehearsal=Rehearsal(make_tiny_flux(arguments.work / "tiny-flux")) if arguments.rehearse else None,
        seconds=arguments.seconds,
        candidate=candidate.settings,
        environment=environment,
        out=out,
    )
    seconds = round(time.monotonic() - started, 1)
    result = result_of(candidate, run.measurement, ok=run.ok, reason=run.reason, run_seconds=seconds, **more)
    append_result(arguments.results, result)
    out.say(f"{name}: {'done' if run.ok else run.reason} ({seconds:.0f} s, log {run.log})")


def _write(candidates: list[Candidate], results: list[Result], out: Output) -> int:
    wanted = {(one.vram, one.settings.name) for one in candidates}
    chosen = [one for one in results if (one.vram, one.name) in wanted]
    if len(chosen) != 1:
        raise UserError("--write takes one candidate.", fix="Name it: --class 12gb --candidate nf4 --write")
    path = resource("profiles", f"{chosen[0].vram}.toml")
    if not path.is_file():
        raise UserError(f"There is no {path}.", fix="Write the candidate's settings into it, each with its reason.")
    write_measurement(path, chosen[0])
    out.say(f"wrote the measurement in {path}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--class", dest="vram", action="append", metavar="CLASS", help="e.g. 16gb; may be repeated")
    add("--candidate", action="append", metavar="NAME", help="may be repeated")
    add("--candidates", type=Path, default=HERE / "profile_candidates.toml", metavar="FILE")
    add("--work", type=Path, default=Path("benchmark"), help="for the base model, caches and logs")
    add("--results", type=Path, default=HERE / "profile_results.jsonl", metavar="FILE")
    add("--environment", type=Path, metavar="DIR", help="a trainer's environment, instead of installing one")
    add("--release", help="the SimpleTuner release")
    add("--steps", type=int, default=12)
    add("--seconds", type=float, default=240, help="the longest that one candidate may take")
    add("--cold", action="store_true", help="make the VAE and text caches anew, so that these phases are measured")
    add("--again", action="store_true", help="measure even what was measured")
    add("--report", action="store_true", help="write the table into docs/profiles.md")
    add("--write", action="store_true", help="write the one candidate's measurement into its class's profile")
    add("--rehearse", action="store_true", help="a tiny model, no GPU")
    add("-o", dest="option", action="append", default=[], metavar="NAME=VALUE", help="a SimpleTuner option")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main(_arguments(), Output()))
    except FluxkitError as error:
        sys.exit(f"error: {error.message}\n  → {error.fix}")
