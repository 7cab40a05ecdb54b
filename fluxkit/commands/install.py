"""`fluxkit install`: the pinned SimpleTuner, in an environment of its own."""

from pathlib import Path

from fluxkit.commands.assemble import open_project, pin_of
from fluxkit.console import Output
from fluxkit.trainer import environment as environments
from fluxkit.trainer.lockfile import read_lock_file, with_lock, write_lock_file
from fluxkit.trainer.pin import resolve


def install(project_dir: Path | None, *, python: Path | None, out: Output) -> environments.Environment:
    """Install what `[simpletuner]` asks for and write `fluxkit.lock`.

    Args:
        project_dir: the project's folder, or one below it.
        python: the interpreter for the trainer's environment; one is looked for by default.
        out: where to say things.

    Raises:
        UserError: the pin is not one that fluxkit can install.
        InstallError: it could not be installed.
    """
    project = open_project(project_dir)
    pin = pin_of(project)
    lock = resolve(pin, project.lock_file, out.say)
    ready = environments.is_ready(environments.environment_for(lock))
    environment = environments.install(lock, python=python, report=out.say)
    platforms = with_lock(read_lock_file(project.lock_file), lock, environments.python_version(environment))
    write_lock_file(project.lock_file, platforms)
    version = lock.release.version
    out.say(f"SimpleTuner {version} ({lock.platform}) {'was ready already' if ready else 'is ready'}.")
    out.result(str(environment.root))
    return environment
