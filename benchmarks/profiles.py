"""Measure candidates for the VRAM profiles with the real SimpleTuner on a full-size FLUX.1-dev of random weights.

    python benchmarks/profiles.py --class 16gb                      # every candidate of a class
    python benchmarks/profiles.py --class 24gb --candidate guide --candidate int8-quanto-b2
    python benchmarks/profiles.py --class 12gb --candidate nf4 --cold --write
    python benchmarks/profiles.py --class 12gb --class 24gb --together
    python benchmarks/profiles.py --report                          # the table in docs/profiles.md, from the results

PyTorch's allocator is capped at what a card of the class has; a candidate that runs out of memory is a result too. Each
result is a line in --results, kept as soon as it is there; a candidate that was measured on this card with these
settings is not measured again. The base model (33 GB) is made once, in --work; VAE and text caches are shared by the
candidates unless --cold is given, which the writing of a profile needs. --together starts all that were chosen at once,
cold, and lets them train one after another (benchmarks/turns.py). --rehearse takes a tiny model and no GPU: it
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
from typing import Any

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
from benchmarks.turns import take_turns
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
    missing = [one for one in candidates if arguments.again or not _is_known(one, arguments, out)]
    if arguments.together:
        _together(missing, arguments, out)
    elif missing and (not arguments.report or arguments.vram):
        project, environment = _project(arguments, out)
        for candidate in missing:
            _measure(candidate, project, environment, arguments, out)
    results = read_results(arguments.results)
    if not arguments.turn:
        out.result(table(results))
    if arguments.report:
        write_report(REPORT, results)
    if arguments.write:
        return _write(candidates, results, out)
    return 0


def _chosen(candidates: list[Candidate], arguments: argparse.Namespace) -> list[Candidate]:
    named = list(arguments.candidate or ())

    def place(one: Candidate) -> int:
        name = one.settings.name
        return next((at for at, wanted in enumerate(named) if wanted in (name, f"{one.vram}/{name}")), len(named))

    of_class = [one for one in candidates if not arguments.vram or one.vram in arguments.vram]
    chosen = sorted((one for one in of_class if not named or place(one) < len(named)), key=place)
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
        base = _base(arguments.base or arguments.work / "flux", python)
        model = project.config.model.model_copy(update={"base": str(base)})
        project = replace(project, config=project.config.model_copy(update={"model": model}))
    return project, environment


def _together(candidates: list[Candidate], arguments: argparse.Namespace, out: Output) -> None:
    """Measure them in processes of their own, each with caches of its own, that take turns."""
    _project(arguments, out)  # the base model, once
    turns = arguments.work / "turns"
    base = arguments.base or (None if arguments.rehearse else arguments.work / "flux")
    shared: list[object] = ["--results", arguments.results, *(["--base", base] if base else [])]
    shared += ["--candidates", arguments.candidates, "--steps", arguments.steps, "--seconds", arguments.seconds]
    shared += ["--run", arguments.run]
    shared += ["--release", arguments.release] if arguments.release else []
    shared += ["--environment", arguments.environment] if arguments.environment else []
    shared += ["--again"] if arguments.again else []
    shared += ["--rehearse"] if arguments.rehearse else []
    shared += [part for pair in arguments.option for part in ("-o", pair)]
    commands = {}
    for one in candidates:
        name = f"{one.vram}-{one.settings.name}"
        shutil.rmtree(arguments.work / "side" / name, ignore_errors=True)  # an earlier start's caches: a phase less
        own = ["--class", one.vram, "--candidate", one.settings.name, "--turn", turns / name]
        work = ["--work", arguments.work / "side" / name]
        commands[name] = [str(each) for each in (sys.executable, __file__, *own, *work, *shared)]
    limits = {"start_seconds": arguments.start_seconds, "seconds": arguments.seconds_in_all}
    take_turns(commands, turns, say=out.say, between=arguments.between, at_once=arguments.at_once, **limits)


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
        behind = os.environ.get("PYTHONPATH", "") if own else ""
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE.parent), behind)))}
        code = stream(argv, cwd=HERE.parent, env=env, on_line=print, log=folder.parent / "full_flux.log")
        if code:
            raise UserError("The full-size base could not be made.", fix=f"See {folder.parent / 'full_flux.log'}.")
        (folder / "complete").touch()
    return folder / "base"


def _gpu() -> str:
    found = gpus()
    return found[training_card()].name if found else ""


def _is_known(candidate: Candidate, arguments: argparse.Namespace, out: Output) -> bool:
    """Whether it was measured with these settings on this card; on a machine without one, on any.

    Results without a record of their repairs are older than `no_tracing`: their times are another trainer's.
    """
    name, gpu = candidate.settings.name, _gpu()
    for one in read_results(arguments.results):
        same = (one.vram, one.name, one.digest) == (candidate.vram, name, candidate.digest)
        if same and one.shims and gpu in ("", one.gpu):
            out.say(f"{candidate.vram}/{name}: measured already")
            return True
    return False


def _measure(
    candidate: Candidate,
    project: Project,
    environment: Environment | None,
    arguments: argparse.Namespace,
    out: Output,
) -> None:
    name = f"{candidate.vram}/{candidate.settings.name}"
    out.say(f"{name}: {candidate.why}")
    if arguments.cold:
        for cache in ("vae", "text"):
            shutil.rmtree(project.cache_dir / cache, ignore_errors=True)
    started = time.monotonic()
    more: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "gpu": _gpu(),
        "simpletuner": find_release(project.config.simpletuner.version).version,
        "cap_gib": candidate.cap_gib,
        "run": arguments.run,
    }
    run = measure_project(
        project,
        arguments.work / "runs" / name,
        steps=arguments.steps,
        option=arguments.option,
        cap_gib=candidate.cap_gib,
        rehearsal=_rehearsal(arguments) if arguments.rehearse else None,
        seconds=arguments.seconds,
        candidate=candidate.settings,
        environment=environment,
        turn=arguments.turn,
        out=out,
    )
    seconds = round(time.monotonic() - started, 1)
    if arguments.turn and not run.ok and not run.measurement.steps and _is_stopped(arguments.turn):
        out.say(f"{name}: not measured, the time was over")
        return  # no result: an earlier one stays
    more |= {"reason": run.reason, "run_seconds": seconds, "shims": run.shims}
    result = result_of(candidate, run.measurement, ok=run.ok, **more)
    append_result(arguments.results, result)
    out.say(f"{name}: {run.reason or 'done'} ({seconds:.0f} s, log {run.log})")


def _rehearsal(arguments: argparse.Namespace) -> Rehearsal:
    """On the tiny model, or on the one in `--base`: quantizing a full-size one on the CPU shows what RAM it takes."""
    return Rehearsal(arguments.base / "base" if arguments.base else make_tiny_flux(arguments.work / "tiny-flux"))


def _is_stopped(turn: Path) -> bool:
    return turn.with_name(f"{turn.name}.stop").exists()


def _write(candidates: list[Candidate], results: list[Result], out: Output) -> int:
    wanted = {(one.vram, one.settings.name) for one in candidates}
    chosen = [one for one in results if (one.vram, one.name) in wanted]
    if len(chosen) != 1:
        raise UserError("--write takes one candidate.", fix="Name it: --class 12gb --candidate nf4 --write")
    (target,) = (one.profile for one in candidates if (one.vram, one.settings.name) == (chosen[0].vram, chosen[0].name))
    path = resource("profiles", f"{target}.toml")
    if not path.is_file():
        raise UserError(f"There is no {path}.", fix="Write the candidate's settings into it, each with its reason.")
    write_measurement(path, chosen[0])
    out.say(f"wrote the measurement in {path}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--class", dest="vram", action="append", metavar="CLASS", help="e.g. 16gb; may be repeated")
    add("--candidate", action="append", metavar="NAME", help="or CLASS/NAME; may be repeated: they come in that order")
    add("--candidates", type=Path, default=HERE / "profile_candidates.toml", metavar="FILE")
    add("--work", type=Path, default=Path("benchmark"), help="for the base model, caches and logs")
    add("--results", type=Path, default=HERE / "profile_results.jsonl", metavar="FILE")
    add("--environment", type=Path, metavar="DIR", help="a trainer's environment, instead of installing one")
    add("--release", help="the SimpleTuner release")
    add("--steps", type=int, default=12)
    add("--seconds", type=float, default=240, help="the longest that one candidate may take")
    add("--cold", action="store_true", help="make the VAE and text caches anew, so that these phases are measured")
    add("--together", action="store_true", help="start all at once, with caches of their own; they train by turns")
    add("--between", type=float, default=5, metavar="SECONDS", help="with --together: between two starts")
    add("--start-seconds", type=float, default=420, help="with --together: who isn't ready by then comes last")
    add("--at-once", type=int, default=4, help="with --together: how many hold T5 and the VAE at the same time")
    add("--seconds-in-all", type=float, help="with --together: what isn't measured by then is left")
    add("--base", type=Path, metavar="DIR", help="where the base model is made or lies [default: in --work]")
    add("--turn", type=Path, help=argparse.SUPPRESS)
    add("--run", default=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), help=argparse.SUPPRESS)
    add("--again", action="store_true", help="measure even what was measured")
    add("--report", action="store_true", help="write the table into docs/profiles.md")
    add("--write", action="store_true", help="write the one candidate's measurement into its class's profile")
    add("--rehearse", action="store_true", help="a tiny model, or the one in --base; no GPU")
    add("-o", dest="option", action="append", default=[], metavar="NAME=VALUE", help="a SimpleTuner option")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main(_arguments(), Output()))
    except FluxkitError as error:
        sys.exit(f"error: {error.message}\n  → {error.fix}")
