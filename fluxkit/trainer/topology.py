"""How many processes train together, on which machines, and where they meet."""

import os
import random
import re
import socket
from dataclasses import dataclass

from fluxkit.errors import UserError

USUAL_PORT = 29500  # torch.distributed's own
# Below the ports that Linux gives to outgoing connections (32768 and up), and not the usual one, which another training
# on this machine may wait for.
_OWN_PORTS = range(20000, 29500)
# A name or IPv4 address, an IPv6 address in brackets, or one alone, which has no port.
_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[\w.-]+|[0-9a-fA-F:.]*:[0-9a-fA-F.]*:[0-9a-fA-F:.]*))(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Topology:
    """The processes of one training. Each holds the whole model and trains on its own share of the photos.

    Args:
        gpus: processes on each machine, one a GPU.
        machines: how many machines.
        rank: this machine's number, 0 for the one that keeps the run.
        address: where the others find machine 0; empty on a single machine.
        port: where the processes meet; 0 for a single process.
        use_cpu: train without a GPU: rehearsals.
    """

    gpus: int = 1
    machines: int = 1
    rank: int = 0
    address: str = ""
    port: int = 0
    use_cpu: bool = False

    @property
    def processes(self) -> int:
        """How many train together, on all machines."""
        return self.gpus * self.machines

    def describe(self) -> str:
        """`1 GPU`, `2 GPUs` or `2 machines with 4 GPUs each`, in words."""
        noun = "CPU process" if self.use_cpu else "GPU"
        plural = noun + ("" if self.gpus == 1 else "es" if self.use_cpu else "s")
        each = f"{self.gpus} {plural}"
        return each if self.machines == 1 else f"{self.machines} machines with {each} each"


ONE_PROCESS = Topology()


def plan_topology(
    *,
    gpus: int,
    machines: int | None,
    rank: int | None,
    address: str | None,
    use_cpu: bool,
) -> Topology:
    """Check what was asked for and choose the port.

    Args:
        gpus: processes on each machine.
        machines: `--num-machines`.
        rank: `--machine-rank`.
        address: `--main-address`, `HOST[:PORT]`.
        use_cpu: whether the trainer will see no GPU.

    Raises:
        UserError: the options don't fit together, or the port is taken.
    """
    if machines is None or machines == 1:
        if rank or address:
            raise UserError(
                "--machine-rank and --main-address are for training on several machines.",
                fix="Add --num-machines N, the same on each of them.",
            )
        return Topology(gpus=gpus, port=free_port() if gpus > 1 else 0, use_cpu=use_cpu)
    if rank is None or not address:
        raise UserError(
            f"With --num-machines {machines} each machine needs its number and the address of the first.",
            fix="On each: --machine-rank 0, 1, … and --main-address HOST[:PORT] of the machine with rank 0.",
        )
    if rank >= machines:
        raise UserError(
            f"--machine-rank {rank} is too high for --num-machines {machines}.",
            fix=f"Number the machines from 0 to {machines - 1}.",
        )
    host, port = parse_address(address)
    if rank == 0 and not is_free(port):
        raise UserError(
            f"Port {port} of this machine is in use.",
            fix=f"Name another one on every machine: --main-address {host}:{port + 1}",
        )
    return Topology(gpus, machines, rank, host, port, use_cpu)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST[:PORT]`; an IPv6 address with a port is written `[::1]:29500`.

    Raises:
        UserError: it is no such thing.
    """
    found = _ADDRESS.fullmatch(address.strip())
    host, port = (found["v6"] or found["host"], found["port"]) if found else ("", "")
    if not host or (port and not 0 < int(port) < 65536):
        raise UserError(f"--main-address {address!r} is not HOST or HOST:PORT.", fix="For example: 192.168.0.10:29500")
    return host, int(port) if port else USUAL_PORT


def free_port() -> int:
    """A port that nothing listens on now. Two trainings on one machine choose different ones, but for a rare chance.

    Should another program take it in the seconds until the trainer does, accelerate looks for one itself.
    """
    for port in random.sample(_OWN_PORTS, 50):
        if is_free(port):
            return port
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on the port, on every address of this machine."""
    with socket.socket() as probe:
        # As servers do: a connection that was closed a moment ago doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def check_gpus(topology: Topology, machine_has: int) -> None:
    """Refuse more GPUs than the trainer would see.

    Args:
        topology: what was asked for.
        machine_has: GPUs of this machine, by NVML; 0 where that can't say.

    Raises:
        UserError: there are fewer.
    """
    seen = visible_gpus(machine_has)
    if topology.use_cpu or topology.gpus <= max(seen, 1) or not machine_has:
        return
    hidden = " (CUDA_VISIBLE_DEVICES hides the others)" if seen < machine_has else ""
    raise UserError(
        f"{topology.gpus} GPUs were asked for, and the trainer would see {seen}{hidden}.",
        fix=f"Use --gpus {max(seen, 1)}, or make the others visible.",
    )


def visible_gpus(machine_has: int) -> int:
    """How many GPUs `CUDA_VISIBLE_DEVICES` leaves: CUDA takes its entries up to the first wrong one."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return machine_has
    count = 0
    for entry in (part.strip() for part in allowed.split(",")):
        if not (entry.startswith(("GPU-", "MIG-")) or (entry.isdigit() and int(entry) < machine_has)):
            break
        count += 1
    return count
