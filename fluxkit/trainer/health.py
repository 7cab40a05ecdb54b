"""Whether an installed trainer answers: it imports, and its parser knows the options that it should."""

import json
import os

from fluxkit.errors import InstallError
from fluxkit.files import write_json
from fluxkit.process import run
from fluxkit.trainer import probe
from fluxkit.trainer.cached import Environment
from fluxkit.trainer.releases import Release
from fluxkit.trainer.schema import has_schema, load_schema
from fluxkit.trainer.uv import clean_env, tail

HEALTH_SECONDS = 600  # the imports take 40 s on two idle cores


def check_health(environment: Environment, release: Release, *, pinned: bool) -> None:
    """The trainer imports, its parser answers, and knows exactly the options of the shipped schema, if there is one.

    Raises:
        InstallError: it does not.
    """
    # In its own folder: the trainer writes debug.log where it is started.
    env = clean_env() | {"PATH": f"{environment.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    env |= environment.python_paths()
    done = run([environment.python, probe.__file__], cwd=environment.root, env=env, timeout=HEALTH_SECONDS)
    answer = next((line for line in reversed(done.stdout.splitlines()) if line.startswith(probe.MARK)), None)
    if done.returncode != 0 or answer is None:
        raise InstallError(
            f"SimpleTuner {release.version} was installed but does not start:\n{tail(done.stderr)}",
            fix="Run `fluxkit install` again; if it stays, report it with the lines above.",
        )
    options = json.loads(answer[len(probe.MARK) :])
    if pinned and has_schema(release.version):
        _check_options(set(options), release)
    write_json(environment.options_file, {"release": release.version, "options": options})


def _check_options(names: set[str], release: Release) -> None:
    differing = sorted(names ^ set(load_schema(release.version).options))
    if differing:
        raise InstallError(
            f"The installed SimpleTuner does not have the options of release {release.version}: "
            f"{', '.join(differing[:8])}.",
            fix="This fluxkit's lock and schema don't belong together: update fluxkit, then install again.",
        )
