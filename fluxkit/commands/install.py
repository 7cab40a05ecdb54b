"""`fluxkit install`: the pinned SimpleTuner, in an environment of its own."""

from pathlib import Path

from fluxkit.commands.assemble import open_project, pin_of
from fluxkit.console import Output
from fluxkit.trainer import environment as environments
from fluxkit.trainer.lockfile import read_lock_file, with_lock, write_lock_file
from fluxkit.trainer.pin import resolve
from fluxkit.trainer.uv import Downloads


def install(
    project_dir: Path | None, *, python: Path | None, out: Output, check: bool = False
) -> environments.Environment:
    """Install what `[simpletuner]` asks for and write `fluxkit.lock`.

    Args:
        project_dir: the project's folder, or one below it.
        python: the interpreter for the trainer's environment; one is looked for by default.
        out: where to say things.
        check: hash every file of a trainer that is installed, not only those that changed since.

    Raises:
        UserError: the pin is not one that fluxkit can install.
        InstallError: it could not be installed.
        InterruptedByUser: Ctrl-C; the next call starts it again.
    """
    project = open_project(project_dir)
    pin = pin_of(project)
    stages: list[str] = []
    with out.bar() as bar:

        def report(text: str) -> None:
            stages.append(text)
            bar.stage(text)

        def on_progress(now: Downloads) -> None:
            if now.announced_bytes:
                done, total = now.finished_bytes / 1e6, now.announced_bytes / 1e6
                bar.update(f"Downloaded {done:,.0f} of {total:,.0f} MB", done, total)

        lock = resolve(pin, project.lock_file, report)
        stages.clear()
        environment = environments.install(lock, python=python, report=report, on_progress=on_progress, deep=check)
    # Only now: a project's lock never names an environment that was not seen to work.
    interpreter = environments.python_version(environment)
    write_lock_file(project.lock_file, with_lock(read_lock_file(project.lock_file), lock, interpreter))
    version = lock.release.version
    built = any(line.startswith("Making") for line in stages)
    out.say(f"SimpleTuner {version} ({lock.platform}) {'is ready' if built else 'was ready already'}.")
    out.result(str(environment.root))
    out.emit(
        {
            "release": version,
            "platform": lock.platform,
            "environment": str(environment.root),
            "python": interpreter,
            "digest": lock.digest,
            "built": built,
            "stages": stages,
        }
    )
    return environment
