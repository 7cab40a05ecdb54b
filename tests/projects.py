"""A project as `fluxkit init` makes it from flags, for the tests that start from one."""

from pathlib import Path

from fluxkit.commands.init import init
from fluxkit.console import Output


def start_project(root: Path, *, simpletuner: str | None = None) -> None:
    """Make the project of behitek, a man, with the profile 24gb and its photos in `dataset/`."""
    init(
        root,
        trigger="behitek",
        subject="man",
        dataset=Path("dataset"),
        profile="24gb",
        simpletuner=simpletuner,
        yes=True,
        out=Output(verbosity=-1),
    )
