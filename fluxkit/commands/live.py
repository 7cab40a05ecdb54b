"""A run as lines for people: stages as lines that stay, steps as one line that rewrites itself on a terminal."""

import shutil
import sys
import time

from fluxkit.console import PLAIN_SECONDS, Output
from fluxkit.trainer import events
from fluxkit.trainer.metrics import Snapshot

_STOPPING = {
    "checkpoint": "Asked for a checkpoint; it stops after that. Ctrl-C again, or `fluxkit stop --now`, stops at once.",
    "now": "Stopping now.",
}


class Live:
    """Shows snapshots as they come. A terminal that went away is no reason to end a run: then nothing is shown.

    Args:
        out: where to say things.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live = sys.stdout.isatty() and not out.as_json and out.verbosity >= 0
        self._open = False
        self._gone = False
        self._last = -PLAIN_SECONDS
        self._shown = Snapshot(stage="")

    def show(self, snapshot: Snapshot) -> None:
        """Show what changed."""
        before, self._shown = self._shown, snapshot
        try:
            if snapshot.stopping != before.stopping and snapshot.stopping:
                self._say(_STOPPING[snapshot.stopping])
            if snapshot.stage != before.stage and snapshot.stage != events.TRAINING:
                self._say(f"  {snapshot.stage} …", style="dim")
            if snapshot.images != before.images and before.stage and snapshot.images:
                self._say(f"  Validation images of step {snapshot.validation:,}: {len(snapshot.images)}", style="dim")
            if self._live:
                self._rewrite(snapshot)
            elif snapshot.step and snapshot.step != before.step:
                self._now_and_then(snapshot)
        except (OSError, SystemExit):  # rich leaves the program when its pipe is closed
            self._gone = True

    def end(self) -> None:
        """Leave the line that rewrites itself."""
        if self._open and not self._gone:
            self._open = False
            try:
                sys.stdout.write("\n")
                sys.stdout.flush()
            except OSError:
                self._gone = True

    def _say(self, text: str, *, style: str | None = None) -> None:
        self.end()
        if not self._gone:
            self._out.say(text, style=style)

    def _rewrite(self, snapshot: Snapshot) -> None:
        stepping = snapshot.stage == events.TRAINING
        if self._gone or not (stepping or snapshot.total):
            return
        text = snapshot.describe() if stepping else f"{snapshot.describe_stage()}"
        width = shutil.get_terminal_size().columns - 3
        sys.stdout.write(f"\r\x1b[2K  {text[:width]}")
        sys.stdout.flush()
        self._open = True

    def _now_and_then(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS or snapshot.step in (1, snapshot.steps):
            self._last = now
            self._say(f"  {snapshot.describe()}")
