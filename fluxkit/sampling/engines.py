"""Which engine makes the images, and what it says of those that could not be made."""

from collections.abc import Sequence

from fluxkit.errors import UserError
from fluxkit.sampling.work import Engine, Failed
from fluxkit.sampling.worker import LocalEngine


def choose_engine(
    name: str, *, workers: int | None = None, address: str | None = None, image_timeout: float | None = None
) -> Engine:
    """The engine of that name, new: an engine serves one run.

    Args:
        name: `local` or `ray`.
        workers: how many, with `ray`; one a GPU by default.
        address: of a Ray cluster; without one, Ray is started on this machine.
        image_timeout: seconds for an image, after which its worker counts as hung, with `ray`; measured by default.

    Raises:
        UserError: Ray is not installed, or the options belong to another engine.
    """
    if name == "ray":
        from fluxkit.sampling.ray_engine import RayEngine

        return RayEngine(address, workers, image_timeout=image_timeout)
    if (workers, address, image_timeout) != (None, None, None):
        raise UserError(
            "--workers, --ray-address and --image-timeout belong to --engine ray.",
            fix="Add --engine ray, or leave them out.",
        )
    return LocalEngine()


def check_failed(failed: Sequence[Failed]) -> None:
    """Say which images could not be made, when all others are.

    Args:
        failed: of a run.

    Raises:
        UserError: there are some.
    """
    if failed:
        reasons = list(dict.fromkeys(one.reason for one in failed))
        more = f" … and {len(reasons) - 3} more." if len(reasons) > 3 else ""
        count = "1 image" if len(failed) == 1 else f"{len(failed)} images"
        raise UserError(
            f"{count} could not be made; the others are there. {' '.join(reasons[:3])}{more}", fix=failed[0].fix
        )
