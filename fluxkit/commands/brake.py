"""What Ctrl-C, `fluxkit stop` and a closing terminal mean to a run that is being supervised."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DETACHED = "FLUXKIT_DETACHED"  # set for the process that `train --detach` starts


class Brake:
    """Turns signals into a wish: first a checkpoint, then now.

    The first SIGINT (Ctrl-C, `fluxkit stop`) only notes the wish where a checkpoint can be had; every other one, and
    SIGTERM and SIGHUP, raise KeyboardInterrupt: stop now. A SIGHUP that nohup has had ignored stays so.

    Args:
        can_wait: whether there is something to save and the release can be asked to.
    """

    def __init__(self, can_wait: Callable[[], bool]) -> None:
        self._can_wait = can_wait
        self.wanted = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Handle the signals; as before afterwards. Only a program's main thread can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        outlives = os.environ.get(DETACHED) or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        hangup = signal.SIG_IGN if outlives else self._handle
        handlers = {signal.SIGINT: self._handle, signal.SIGTERM: self._handle, signal.SIGHUP: hangup}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self.wanted and self._can_wait():
            self.wanted = True
            return
        raise KeyboardInterrupt
