"""The optional parts of fluxkit: whether one is installed, asked without importing it."""

from importlib.util import find_spec

from fluxkit.errors import UserError

# What an extra brings, by the names they are imported under.
_MODULES = {
    "sample": ("torch", "diffusers", "transformers", "lycoris", "optimum.quanto"),
    "caption": ("torch", "transformers"),
    "ray": ("ray",),
    "nf4": ("bitsandbytes",),
}


def require(extra: str, purpose: str) -> None:
    """Check that an extra of fluxkit is installed.

    Args:
        extra: its name in `fluxkit[…]`.
        purpose: what needs it, to begin the message with.

    Raises:
        UserError: a package of it is missing.
    """
    missing = [name for name in _MODULES[extra] if not _is_there(name)]
    if missing:
        raise UserError(
            f"{purpose} needs packages that are not installed: {', '.join(missing)}.",
            fix=f"Install them with: python -m pip install -c constraints.txt 'fluxkit[{extra}]'",
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False
