"""The command line: options → one call a verb; errors → exit codes. No logic.

Every verb's module is imported when the verb runs, so that `fluxkit --help` imports neither torch nor rich.
"""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from fluxkit import __version__
from fluxkit.console import Output
from fluxkit.errors import FluxkitError

_Command = Callable[..., None]


def _common(*, reports: bool = False) -> Callable[[_Command], _Command]:
    """Options that every command takes: `-C/--project`, `-v`, `-q`, and `--json` where it reports something."""

    def decorate(command: _Command) -> _Command:
        @click.option("-C", "--project", type=click.Path(path_type=Path), help="The project's folder [default: here].")
        @click.option("-v", "--verbose", is_flag=True, help="Say more.")
        @click.option("-q", "--quiet", is_flag=True, help="Errors and results only.")
        @wraps(command)
        def with_output(*, verbose: bool, quiet: bool, **options: Any) -> None:
            verbosity = -1 if quiet else int(verbose)
            command(out=Output(verbosity=verbosity, as_json=options.pop("as_json", False)), **options)

        if reports:
            return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(with_output)
        return with_output

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fluxkit")
def cli() -> None:
    """From a folder of photos to a FLUX.1-dev LoRA and a wall of portraits, on your own GPU."""


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.option("--trigger", help="The made-up word that stands for the person, e.g. behitek.")
@click.option("--subject", help='What the photos show: "man", "woman", "dog".')
@click.option("--dataset", type=click.Path(path_type=Path), help="The folder with the photos.")
@click.option(
    "--profile",
    help="auto, 12gb, 16gb, 24gb or 48gb: how much memory the GPU has; 12gb-nf4: 4 bits, nothing compiled; "
    "24gb-fast, 48gb-fast: several photos a step [default: auto].",
)
@click.option("--simpletuner", metavar="VERSION", help="The SimpleTuner release to pin.")
@click.option("--yes", is_flag=True, help="Ask nothing; take the defaults.")
@_common()
def init(directory: Path | None, project: Path | None, **options: Any) -> None:
    """Start a project: fluxkit.toml, prompts.toml. Overwrites nothing."""
    from fluxkit.commands.init import init as run

    run(directory or project or Path(), **options)


@cli.command()
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write a page to look at."
)
@click.option("--gpus", type=click.IntRange(min=1), default=1, help="How many are to train together.")
@_common(reports=True)
def validate(project: Path | None, **options: Any) -> None:
    """Check photos, captions and trigger; name every problem and its fix."""
    from fluxkit.commands.validate import validate as run

    run(project, **options)


@cli.command()
@click.option("--crop", type=click.Choice(["none", "face"]), help="face: squares around the faces.")
@click.option("--duplicates", type=click.Choice(["leave-out", "keep"]), help="Photos that look the same.")
@_common(reports=True)
def prepare(project: Path | None, **options: Any) -> None:
    """Make a clean copy of the photos to train on: upright, sRGB, no metadata. The originals stay as they are."""
    from fluxkit.commands.prepare import prepare as run

    run(project, **options)


@cli.command()
@click.option("--model", metavar="ID", help="A Hub id or a folder [default: florence-community/Florence-2-large].")
@click.option("--overwrite", is_flag=True, help="Caption all photos; older captions are kept as .txt.bak.")
@click.option("--review", "review_all", is_flag=True, help="Open each caption in your editor.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Photos at once [default: 8 on a GPU, else 1].")
@_common(reports=True)
def caption(project: Path | None, **options: Any) -> None:
    """Describe each photo that has no caption yet, the trigger first."""
    from fluxkit.commands.caption import caption as run

    run(project, **options)


@cli.command()
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where to write [default: config/].")
@click.option("--diff", is_flag=True, help="Show what would change; write nothing.")
@click.option("-o", "option", multiple=True, metavar="NAME=VALUE", help="A SimpleTuner option.")
@_common(reports=True)
def render(project: Path | None, **options: Any) -> None:
    """Write the JSON files that SimpleTuner reads, checked against the pinned release."""
    from fluxkit.commands.render import render as run

    run(project, **options)


@cli.command()
@click.option("--source", metavar="pypi|git|PATH", help="Where SimpleTuner comes from; kept in fluxkit.toml.")
@click.option("--python", type=click.Path(path_type=Path), help="The interpreter for the trainer's environment.")
@click.option("--check", is_flag=True, help="Read every installed file; install again if one is not as it was.")
@_common(reports=True)
def install(project: Path | None, **options: Any) -> None:
    """Install the pinned SimpleTuner, in an environment of its own."""
    from fluxkit.commands.install import install as run

    run(project, **options)


@cli.command()
@click.option("--measure", is_flag=True, help="Train 3 real steps and keep what they took.")
@click.option("-o", "option", multiple=True, metavar="NAME=VALUE", help="A SimpleTuner option, as for train.")
@_common(reports=True)
def fit(project: Path | None, **options: Any) -> None:
    """Say whether the training fits this machine's GPU, RAM and disk, and what would make it fit."""
    from fluxkit.commands.fit import fit as run

    run(project, **options)


@cli.command()
@click.option("--rehearse", is_flag=True, help="The whole chain on a tiny random FLUX: minutes, no download.")
@click.option("--dry-run", is_flag=True, help="Print what would be launched; launch nothing.")
@click.option("--fresh", is_flag=True, help="A new run, even if one is unfinished.")
@click.option("--no-fit-check", is_flag=True, help="Start it even if it is known not to fit this machine.")
@click.option("--gpus", type=click.IntRange(min=1), metavar="N", help="GPUs to train on, of each machine.")
@click.option("--num-machines", type=click.IntRange(min=1), metavar="N", help="Machines that train together.")
@click.option("--machine-rank", type=click.IntRange(min=0), metavar="R", help="This one's number, from 0.")
@click.option("--main-address", metavar="HOST[:PORT]", help="Where the others find machine 0.")
@click.option("--run", "run_id", metavar="ID", help="For the others: the run to join [default: the newest].")
@click.option("-o", "option", multiple=True, metavar="NAME=VALUE", help="A SimpleTuner option, for this run.")
@click.option("--detach", is_flag=True, help="In the background: this terminal may be closed.")
@_common(reports=True)
def train(project: Path | None, detach: bool, **options: Any) -> None:
    """Train the LoRA. Ctrl-C stops it, after a checkpoint where it can; the same command continues."""
    if detach and not options["dry_run"]:
        from fluxkit.commands.detach import detach as start

        start(project, arguments=sys.argv[1:], machine_rank=options["machine_rank"], out=options["out"])
        return
    from fluxkit.commands.train import train as run

    run(project, **options)


@cli.command()
@click.argument("run_id", metavar="[ID]", required=False)
@_common(reports=True)
def attach(project: Path | None, **options: Any) -> None:
    """Look at the run that is being trained. Ctrl-C ends the looking, not the run."""
    from fluxkit.commands.attach import attach as run

    run(project, **options)


@cli.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option("--now", is_flag=True, help="Without a checkpoint.")
@_common(reports=True)
def stop(project: Path | None, **options: Any) -> None:
    """Stop the run that is being trained, after a checkpoint where it can; a second stop is at once."""
    from fluxkit.commands.stop import stop as run

    run(project, **options)


@cli.group(invoke_without_command=True)
@_common(reports=True)
@click.pass_context
def runs(context: click.Context, /, project: Path | None, **options: Any) -> None:
    """List what was trained and what became of it; `runs show` shows one run."""
    context.obj = project
    if context.invoked_subcommand is None:
        from fluxkit.commands.runs import list_all as run

        run(project, **options)


@runs.command()
@click.argument("run_id", metavar="[ID]", required=False)
@_common(reports=True)
@click.pass_context
def show(context: click.Context, /, project: Path | None, **options: Any) -> None:
    """Show one run, the newest by default: loss curve, checkpoints, validation images, why it failed."""
    from fluxkit.commands.runs import show as run

    run(project or context.obj, **options)


@cli.command()
@click.option("--run", "run_id", metavar="ID", help="The run to take the adapter from [default: the newest].")
@click.option("--checkpoint", metavar="A,B", help="Steps, latest, final, all, base (none) [default: latest].")
@click.option(
    "--adapter", multiple=True, metavar="PATH[:WEIGHT]", help="An adapter from elsewhere; several make a sum."
)
@click.option("--base", metavar="ID|FOLDER", help="Another base model, such as FLUX.1-schnell.")
@click.option("--prompt", multiple=True, metavar="TEXT", help="Instead of prompts.toml.")
@click.option("--prompts", metavar="FILE", type=click.Path(path_type=Path), help="A text file, one prompt a line.")
@click.option("--seeds", metavar="N|A,B,C|random:N", help="How many a prompt, or which.")
@click.option("--strength", metavar="A,B", help="How much of the adapter, 0 to 1 or a little more.")
@click.option("--size", metavar="WxH", help="In pixels, e.g. 1024x1024.")
@click.option("--num-inference-steps", metavar="A,B", help="Denoising steps.")
@click.option("--guidance-scale", metavar="A,B", help="How closely to follow the prompt.")
@click.option(
    "--quantize",
    type=click.Choice(["auto", "int8", "int8-dynamic", "fp8", "nf4", "none"]),
    help="The base model's weights while sampling; auto, the default, takes the fastest that this GPU does well.",
)
@click.option("--batch-size", metavar="auto|N", help="Images at once.")
@click.option(
    "--first-block-cache",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="THRESHOLD",
    help="Lossy: skip most of a step that changes less than this, such as 0.08 [default: off].",
)
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where the images go [default: samples/].")
@click.option("--grid", metavar="X,Y", help="Also a sheet with axes, such as checkpoint,seed.")
@click.option("--format", "image_format", type=click.Choice(["png", "webp", "jpeg"]), default="png", show_default=True)
@click.option("--metadata/--no-metadata", default=True, help="Whether the files say how they were made [default: yes].")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", help="ray: over several GPUs or machines."
)
@click.option("--workers", type=click.IntRange(min=1), help="With --engine ray [default: one a GPU].")
@click.option("--ray-address", metavar="HOST:PORT|auto", help="A Ray cluster [default: one on this machine].")
@click.option(
    "--image-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --engine ray: a worker that takes longer hangs, and is replaced [default: measured].",
)
@click.option("--verify", is_flag=True, help="Read the images that are there again, to find damaged ones.")
@_common(reports=True)
def sample(project: Path | None, **options: Any) -> None:
    """Make images with the trained LoRA; a second call makes only what is missing."""
    from fluxkit.commands.sample import sample as run

    run(project, **options)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--no-open", is_flag=True, help="Don't start a browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="On this machine alone [default: a free one].")
@_common()
def gallery(project: Path | None, **options: Any) -> None:
    """Look at the images and pick the good ones. FOLDER: the newest of samples/."""
    from fluxkit.commands.gallery import gallery as run

    run(project, **options)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--export", metavar="DIR", type=click.Path(path_type=Path), required=True, help="Where the copies go.")
@click.option("--picks", metavar="FILE", type=click.Path(path_type=Path), help="Picks that the page let download.")
@click.option("--metadata/--no-metadata", default=True, help="Whether the copies say how they were made.")
@_common(reports=True)
def pick(project: Path | None, **options: Any) -> None:
    """Copy the images that were kept in the gallery."""
    from fluxkit.commands.gallery import pick as run

    run(project, **options)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--x", default="checkpoint", show_default=True, help="checkpoint, strength, seed, prompt, guidance, steps."
)
@click.option("--y", default="seed", show_default=True, help="One of the others.")
@_common(reports=True)
def grid(project: Path | None, **options: Any) -> None:
    """Compare images that are there on a sheet with axes."""
    from fluxkit.commands.gallery import grid as run

    run(project, **options)


@cli.command()
@click.argument("version", required=False)
@click.option("--dry-run", is_flag=True, help="Do everything but switch.")
@click.option("--skip-rehearsal", is_flag=True, help="Don't rehearse; only for a release that fluxkit hasn't tried.")
@_common(reports=True)
def upgrade(project: Path | None, **options: Any) -> None:
    """Move to another SimpleTuner, proven on this project before anything of it changes."""
    from fluxkit.commands.upgrade import upgrade as run

    run(project, **options)


@cli.command()
@click.option("--offline", is_flag=True, help="Don't ask the model hub.")
@click.option(
    "--bundle",
    "bundle_file",
    metavar="[FILE]",
    is_flag=False,
    flag_value=".",
    type=click.Path(path_type=Path),
    help="Write a report to send, without photos, names or tokens [default: a .zip here].",
)
@_common(reports=True)
def doctor(project: Path | None, **options: Any) -> None:
    """Look at this machine and this project; say what is missing and what to do about it."""
    from fluxkit.commands.doctor import doctor as run

    run(project, **options)


@cli.command()
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the demo's project here [default: a cache folder].")
@_common()
def demo(project: Path | None, **options: Any) -> None:
    """The whole chain on made-up pictures and a tiny model: no GPU, no download of FLUX."""
    from fluxkit.commands.demo import demo as run

    run(options.pop("keep") or project, **options)


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FluxkitError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.fix:
            click.echo(f"  → {error.fix}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `fluxkit … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception:
        click.echo(f"This is a bug in fluxkit. A log to paste: {_bug_log()}", err=True)
        sys.exit(70)


def _bug_log() -> Path:
    """Write the traceback of the exception being handled where it can be found again."""
    import traceback

    from fluxkit.files import cache_dir, write_text

    path = cache_dir() / "bugs" / f"fluxkit-{os.getpid()}.log"
    write_text(path, f"fluxkit {__version__}, Python {sys.version}\n{traceback.format_exc()}")
    return path
