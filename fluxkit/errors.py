"""The failures that people meet, each with its exit code and the next thing to do.

A `FluxkitError` reaches the screen as its message and its fix, never as a traceback. Anything else that
escapes is a bug in fluxkit (exit code 70), and `cli.main` leaves a log to paste.
"""


class FluxkitError(Exception):
    """Something went wrong that fluxkit understands.

    Args:
        message: what is wrong, in one sentence, naming the file or the setting.
        fix: what to do next: a command, a setting, a thing to check.
    """

    exit_code = 1

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


class UserError(FluxkitError):
    """The user can fix it."""

    exit_code = 1


class TrainerError(FluxkitError):
    """SimpleTuner failed, or its result is not what was asked for."""

    exit_code = 3


class InstallError(FluxkitError):
    """The trainer's environment could not be made."""

    exit_code = 4


class GpuMemoryError(FluxkitError):
    """It does not fit into the GPU's memory."""

    exit_code = 5


class InterruptedByUser(FluxkitError):
    """Ctrl-C; what was finished is kept."""

    exit_code = 130
