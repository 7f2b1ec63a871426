"""What already listens where masters will is named at once, not after a wait."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from mesaform.common.errors import Busy
from mesaform.config.schema import ClusterSpec, Network
from mesaform.localcloud.network_claims import NetworkClaims
from mesaform.provision.addresses import require_network, require_ports, taken
from mesaform.topology.addresses import master_addresses

SPEC = ClusterSpec(name="a", network=Network(cidr="127.59.64.0/18"))
FIRST = str(master_addresses(SPEC)[0])


def listen(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    return listener


@pytest.mark.parametrize("port", [5050, 2181, 8080])
def test_a_port_that_a_master_needs_is_named_with_who_has_it(port: int) -> None:
    with (
        listen(FIRST, port),
        pytest.raises(Busy, match=rf"{FIRST}:{port} is taken by pid {os.getpid()} "),
    ):
        require_ports(SPEC, ours=[])


def test_who_listens_everywhere_is_in_the_way_too() -> None:
    """A port of its own: a cluster that runs on this host holds all of a master's."""
    with listen("0.0.0.0", 0) as everywhere:
        port = everywhere.getsockname()[1]
        result = taken([str(address) for address in master_addresses(SPEC)], [port])
    assert [(item.port, item.holder.split()[1]) for item in result] == [
        (port, str(os.getpid()))
    ] * 3


def test_machines_of_the_cluster_itself_may_listen() -> None:
    with listen(FIRST, 5050):
        require_ports(SPEC, ours=[FIRST])


def test_free_addresses_are_fine(tmp_path: Path) -> None:
    require_ports(SPEC, ours=[])
    require_network(SPEC, tmp_path)


def test_another_local_cloud_on_the_same_addresses_is_named(tmp_path: Path) -> None:
    other = NetworkClaims(tmp_path / "other")
    assert other.take(IPv4Network("127.59.0.0/16")) is None
    try:
        with pytest.raises(
            Busy, match=rf"127.59.64.0/18 overlaps 127.59.0.0/16.*{str(other.root)[-40:]}"
        ):
            require_network(SPEC, tmp_path / "mine")
        require_network(SPEC, other.root)
    finally:
        other.release(IPv4Network("127.59.0.0/16"))
    require_network(SPEC, tmp_path / "mine")
