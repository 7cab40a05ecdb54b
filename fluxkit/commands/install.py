"""`fluxkit install`: the pinned SimpleTuner, in an environment of its own."""

from dataclasses import replace
from pathlib import Path

from fluxkit.commands.assemble import open_project, pin_of
from fluxkit.console import Output
from fluxkit.project.edit import edited
from fluxkit.project.journal import switch
from fluxkit.project.load import CONFIG_FILE, LOCK_FILE, Project
from fluxkit.trainer import environment as environments
from fluxkit.trainer.lockfile import lock_file_text, read_lock_file, with_lock, write_lock_file
from fluxkit.trainer.pin import resolve
from fluxkit.trainer.uv import Downloads


def install(
    project_dir: Path | None,
    *,
    python: Path | None,
    out: Output,
    source: str | None = None,
    check: bool = False,
) -> environments.Environment:
    """Install what `[simpletuner]` asks for and write `fluxkit.lock`.

    Args:
        project_dir: the project's folder, or one below it.
        python: the interpreter for the trainer's environment; one is looked for by default.
        out: where to say things.
        source: `pypi`, `git` or a folder instead of what `fluxkit.toml` says; once installed, it says that too.
        check: hash every file of a trainer that is installed, not only those that changed since.

    Raises:
        UserError: the pin is not one that fluxkit can install.
        InstallError: it could not be installed.
        InterruptedByUser: Ctrl-C; the next call starts it again.
    """
    project = open_project(project_dir)
    chosen = {} if source is None else _chosen(source, project)
    pin = pin_of(_with_source(project, chosen))
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
    platforms = with_lock(read_lock_file(project.lock_file), lock, interpreter)
    if chosen:
        _keep(project, chosen, lock_file_text(platforms), out)
    else:
        write_lock_file(project.lock_file, platforms)
    version = lock.release.version
    built = any(line.startswith("Making") for line in stages)
    unpinned = f" from {lock.source.path}, not pinned" if lock.source.kind == "path" else ""
    out.say(f"SimpleTuner {version} ({lock.platform}){unpinned} {'is ready' if built else 'was ready already'}.")
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


def _chosen(source: str, project: Project) -> dict[str, str | None]:
    """`--source`'s word as settings of `[simpletuner]`."""
    now = project.config.simpletuner
    chosen: dict[str, str | None] = {"source": source, "path": None}
    if source not in ("pypi", "git"):
        chosen = {"source": "path", "path": str(Path(source).expanduser().resolve())}
    # A mirror of the repository is no mirror of the package index.
    return chosen if chosen["source"] == now.source else chosen | {"mirror": None}


def _keep(project: Project, chosen: dict[str, str | None], lock: str, out: Output) -> None:
    """Change the pin and the lock as one: `train` passes over a lock that `fluxkit.toml` doesn't ask for."""
    path = project.root / CONFIG_FILE
    before = path.read_bytes()
    text = before.decode("utf-8-sig")
    now = edited(text, {("simpletuner", name): value for name, value in chosen.items()})
    files = {LOCK_FILE: lock.encode(), **({} if now == text else {CONFIG_FILE: now.encode()})}
    switch(project.root, files, before={CONFIG_FILE: before})
    if now != text:
        out.say(f'{CONFIG_FILE} now says source = "{chosen["source"]}", so that train uses it.')


def _with_source(project: Project, chosen: dict[str, str | None]) -> Project:
    section = project.config.simpletuner.model_copy(update=chosen)
    return replace(project, config=project.config.model_copy(update={"simpletuner": section}))
