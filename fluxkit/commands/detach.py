"""`fluxkit train --detach`: the same command in the background, for as long as it takes, whatever the terminal does."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fluxkit.commands.assemble import open_project
from fluxkit.commands.brake import DETACHED
from fluxkit.console import Output
from fluxkit.errors import UserError
from fluxkit.process import Background, start_in_background
from fluxkit.trainer.occupancy import Holder, holder_of

LOOK_SECONDS = 0.1


def detach(
    project: Path | None, *, arguments: Sequence[str], machine_rank: int | None = None, out: Output
) -> str | None:
    """Start training in the background; come back when a run has begun, or with what kept it from beginning.

    Args:
        project: the project's folder.
        arguments: of this call; the background's are the same but for `--detach`.
        machine_rank: this machine's number, where several train together.
        out: where to say things.

    Returns:
        The run's id; None where it had ended before it could be seen.

    Raises:
        UserError: another run is being trained, or this machine only joins one.
        SystemExit: it did not begin; its messages are on the screen, its exit code is this one's.
    """
    if machine_rank:
        raise UserError(
            f"--detach is for machine 0: `fluxkit attach` and `fluxkit stop` speak to the one that keeps the run, and "
            f"machine {machine_rank} only lends it its GPUs. It ends by itself when the run does.",
            fix=f"Leave out --detach and let the shell do it: nohup fluxkit train … --machine-rank {machine_rank} … "
            f"> machine-{machine_rank}.log 2>&1 &",
        )
    opened = open_project(project)
    holder = holder_of(opened.root)
    if holder:
        raise UserError(
            f"Run {holder.run or '(being prepared)'} is training in this project already.",
            fix="`fluxkit attach` shows it, `fluxkit stop` ends it.",
        )
    log = opened.runs_dir / f".detached-{os.getpid()}.log"
    own = [word for word in arguments if word != "--detach"]
    child = start_in_background(
        [sys.executable, "-m", "fluxkit", *own], env={**os.environ, DETACHED: "1", "PYTHONUNBUFFERED": "1"}, log=log
    )
    holder = _until_begun(opened.root, child, _Relay(log, out))
    if holder is None:
        log.unlink(missing_ok=True)
        code = child.poll()
        if code:
            sys.exit(code if code > 0 else 1)
        return None
    kept = opened.runs_dir / holder.run / "logs" / f"fluxkit-{child.pid}.log"
    kept.parent.mkdir(parents=True, exist_ok=True)
    log.rename(kept)
    out.say(f"Run {holder.run} goes on in the background (process {child.pid}); you can close this terminal.")
    out.say("  fluxkit attach    looks at it")
    out.say("  fluxkit stop      ends it, after a checkpoint")
    out.say(f"  Its messages: {kept}")
    out.emit({"run": holder.run, "pid": child.pid, "log": str(kept)})
    return holder.run


def _until_begun(root: Path, child: Background, relay: "_Relay") -> Holder | None:
    """The holder that the background has become; None when it ended first."""
    while True:
        over = child.poll() is not None
        relay.pass_on()
        holder = holder_of(root)
        if holder and holder.pid == child.pid and holder.trainer:
            return holder
        if over:
            return None
        time.sleep(LOOK_SECONDS)


class _Relay:
    """Says here what the background says, until the ways part."""

    def __init__(self, log: Path, out: Output) -> None:
        self._log = log
        self._out = out
        self._at = 0

    def pass_on(self) -> None:
        """Print what is new."""
        with self._log.open("rb") as handle:
            handle.seek(self._at)
            new = handle.read()
        self._at += len(new)
        if new and not self._out.as_json:
            sys.stdout.write(new.decode("utf-8", "replace"))
            sys.stdout.flush()
        elif new:
            sys.stderr.write(new.decode("utf-8", "replace"))
