import socket
from typing import Any

import pytest

from fluxkit.errors import UserError
from fluxkit.trainer import topology
from fluxkit.trainer.topology import (
    Topology,
    check_gpus,
    free_port,
    is_free,
    parse_address,
    plan_topology,
    visible_gpus,
)


def plan(**asked: Any) -> Topology:
    return plan_topology(**{"gpus": 1, "machines": None, "rank": None, "address": None, "use_cpu": False, **asked})


def test_one_process_needs_no_port() -> None:
    assert plan() == Topology()


def test_two_trainings_on_one_machine_meet_on_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(topology, "_OWN_PORTS", [port] * 49 + [0])
        monkeypatch.setattr(topology.random, "sample", lambda ports, _: list(ports)[:49])
        assert plan(gpus=2).port not in (0, port)


def test_the_usual_port_is_left_to_others() -> None:
    assert all(free_port() != 29500 for _ in range(5))


def test_machines_meet_at_the_first_one() -> None:
    found = plan(gpus=4, machines=2, rank=1, address="10.0.0.1:4000")
    assert (found.processes, found.address, found.port) == (8, "10.0.0.1", 4000)
    assert found.describe() == "2 machines with 4 GPUs each"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rank": 1}, "--num-machines"),
        ({"address": "10.0.0.1"}, "--num-machines"),
        ({"machines": 2}, "its number and the address"),
        ({"machines": 2, "rank": 0}, "its number and the address"),
        ({"machines": 2, "address": "a"}, "its number and the address"),
        ({"machines": 2, "rank": 2, "address": "a"}, "too high"),
        ({"machines": 2, "rank": 1, "address": "a:b"}, "not HOST"),
    ],
)
def test_options_that_do_not_fit_together_are_named(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**asked)
    assert said in f"{caught.value.message} {caught.value.fix}"


def test_a_taken_port_is_said_before_launch_and_only_where_it_matters() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(UserError, match=f"Port {port} of this machine is in use"):
            plan(machines=2, rank=0, address=f"127.0.0.1:{port}")
        assert plan(machines=2, rank=1, address=f"127.0.0.1:{port}").port == port  # it is machine 0's


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("gpu-1", "gpu-1", 29500),
        ("10.0.0.1:4000", "10.0.0.1", 4000),
        ("fd00::2", "fd00::2", 29500),
        ("[fd00::2]:4000", "fd00::2", 4000),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)


@pytest.mark.parametrize("text", ["", ":29500", "a:", "a:0x10", "a:70000", "http://a:1", "two words", "[fd00::2"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(UserError, match="not HOST"):
        parse_address(text)


@pytest.mark.parametrize(
    ("allowed", "seen"), [(None, 4), ("0,1", 2), ("GPU-8f,GPU-9a,GPU-1", 3), ("", 0), ("-1", 0), ("1,7,2", 1)]
)
def test_hidden_gpus_do_not_count(allowed: str | None, seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if allowed is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert visible_gpus(4) == seen


def test_more_gpus_than_there_are_is_said_before_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check_gpus(Topology(gpus=2), 2)
    check_gpus(Topology(gpus=2, use_cpu=True), 0)
    with pytest.raises(UserError, match="3 GPUs were asked for, and the trainer would see 2") as caught:
        check_gpus(Topology(gpus=3), 2)
    assert "--gpus 2" in caught.value.fix
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES hides"):
        check_gpus(Topology(gpus=2), 2)
