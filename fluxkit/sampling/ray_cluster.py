"""A Ray cluster to work on: one that is there, or one of our own on this machine that nobody else can reach.

Nothing of a run may leave the machine unasked: Ray's usage report is off, and what Ray starts here listens on the
loopback address alone.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from fluxkit.errors import UserError

_OBJECT_STORE = 80 * 2**20  # bytes; Ray's smallest. Images go through the folder, so it holds next to nothing
_STATUS = "Look at it with `ray status`; docs/scale.md says how to start one."


@dataclass(frozen=True)
class Cluster:
    """What there is to work with.

    Args:
        gpus: in all nodes.
        cpus: in all nodes.
        nodes: how many there are.
    """

    gpus: int
    cpus: int
    nodes: int

    def workers(self, wanted: int | None) -> int:
        """How many workers to start: as many as wanted, else one a GPU, else one a node.

        Raises:
            UserError: the cluster has no room for so many.
        """
        if wanted is None:
            return self.gpus or self.nodes
        room, unit = (self.gpus, "GPU") if self.gpus else (self.cpus, "CPU core")
        if wanted > room:
            raise UserError(
                f"{wanted} workers were asked for, and the cluster has room for {room}: one a {unit}.",
                fix=f"Use --workers {room}, or leave it out.",
            )
        return wanted


def import_ray() -> Any:
    """Ray, told beforehand to stay at home and to keep quiet."""
    # Read when Ray is imported. The last one is Ray's switch to take the loopback address for this machine's own, which
    # it does by itself on other systems only.
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SCHEDULER_EVENTS": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def ray_cluster(address: str | None, *, wanted: int | None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine and end it afterwards.

    Args:
        address: `host:port` of a cluster that this machine belongs to; `auto` for the one that runs here; None for
            one of our own.
        wanted: workers that it must have room for.

    Raises:
        UserError: there is no such cluster, or it can't be used.
    """
    if address is not None and address.startswith("ray://"):
        raise UserError(
            f"{address} is the address of a Ray client server, which this does not speak.",
            fix="Run fluxkit on a machine of the cluster, with --ray-address auto.",
        )
    if address is None:
        # As the processes started here are to see it; a cluster's address there would lead away.
        os.environ.pop("RAY_ADDRESS", None)
    ray = import_ray()
    session = Path(tempfile.mkdtemp(prefix="fluxkit-ray-")) if address is None else None
    common = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        try:
            if session is None:
                ray.init(address=address, **common)
            else:
                cpus = max(os.cpu_count() or 1, wanted or 1)
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE,
                    _temp_dir=str(session),
                    **common,
                )
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            where = f"The Ray cluster at {address}" if address else "Ray on this machine"
            raise UserError(f"{where} can't be used: {_first_line(error)}", fix=_STATUS) from error
        # A worker's death is ours to tell; Ray would print it on stdout, where `--json` promises one document.
        ray._private.worker._worker_logs_enabled = False
        if session is not None:
            _check_loopback(ray)
        total = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        yield Cluster(int(total.get("GPU", 0)), int(total.get("CPU", 0)), nodes)
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)


def _check_loopback(ray: Any) -> None:
    for node in ray.nodes():
        if not ip_address(node["NodeManagerAddress"]).is_loopback:
            raise UserError(
                f"Ray would listen on {node['NodeManagerAddress']}, where other machines can reach it.",
                fix="Unset RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, or start a cluster yourself and name it: --ray-address.",
            )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
