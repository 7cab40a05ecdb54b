"""Where fluxkit's own data lies: templates, profiles, and the facts about SimpleTuner.

The three folders are at the top of the repository; a wheel carries them inside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
FOLDERS = ("templates", "profiles", "third_party")


def resource(folder: str, *parts: str) -> Path:
    """Path of a data file or folder, in a checkout or an installed wheel.

    Args:
        folder: one of `FOLDERS`.
        parts: names below it.

    Raises:
        ValueError: `folder` is not one of `FOLDERS`.
    """
    if folder not in FOLDERS:
        raise ValueError(f"{folder!r} is none of {FOLDERS}")
    packaged = _PACKAGE / "_data" / folder
    root = packaged if packaged.is_dir() else _PACKAGE.parent / folder
    return root.joinpath(*parts)
