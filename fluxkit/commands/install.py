"""`fluxkit install`: the pinned SimpleTuner, in an environment of its own."""

from pathlib import Path

from fluxkit.commands.assemble import open_project
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.trainer import environment as environments
from fluxkit.trainer.lock import choose_platform, shipped_lock, write_project_lock
from fluxkit.trainer.releases import find_release


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
    pin = project.config.simpletuner
    release = find_release(pin.version)
    if pin.source != "pypi":
        raise UserError(
            f'fluxkit can\'t install SimpleTuner with source = "{pin.source}" yet.',
            fix='Set source = "pypi" in [simpletuner] of fluxkit.toml.',
        )
    lock = shipped_lock(release, choose_platform(pin.platform))
    ready = environments.is_ready(environments.environment_for(lock))
    environment = environments.install(lock, python=python, report=out.say)
    write_project_lock(project.lock_file, lock, environments.python_version(environment), source=pin.source)
    out.say(f"SimpleTuner {release.version} ({lock.platform}) {'was ready already' if ready else 'is ready'}.")
    out.result(str(environment.root))
    return environment
