"""Check that this host's addresses are free for a local cluster, before anything is created.

A master whose port is taken would look like one that hangs. Depends on the local network stack.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import psutil

from mesaform.common.errors import Busy
from mesaform.config.schema import ClusterSpec
from mesaform.localcloud.network_claims import find_overlap, overlap_text
from mesaform.topology.addresses import master_addresses
from mesaform.topology.ports import Port

MASTER_PORTS = (
    Port.ZOOKEEPER_CLIENT,
    Port.ZOOKEEPER_PEER,
    Port.ZOOKEEPER_ELECTION,
    Port.ENGINE_MASTER,
    Port.ENGINE_LINK,
    Port.SERVICES,
    Port.AUTOSCALER,
)
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Taken:
    """A port of a master at which another process listens.

    `holder` is for people, such as "pid 4711 (java)"; empty if this user may not know it.
    """

    address: str
    port: int
    holder: str

    def __str__(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        return f"{self.address}:{self.port} is taken{by}"


def require_network(spec: ClusterSpec, local_dir: Path) -> None:
    """Check that no other local cloud of this host uses addresses of this cluster.

    Raises:
        Busy: one does; the message names it.

    """
    if spec.network.mode == "existing":
        return
    network = IPv4Network(spec.network.cidr)
    if other := find_overlap(network, local_dir.resolve()):
        raise Busy(
            overlap_text(network, other),
            where="network.cidr",
            fix="choose another network.cidr, or end that one:"
            f" mesaform local stop --state {other.root}",
        )


def require_ports(spec: ClusterSpec, ours: Iterable[str]) -> None:
    """Check that the masters will be able to listen.

    Args:
        spec: the cluster.
        ours: addresses of machines of this cluster that run already.

    Raises:
        Busy: somebody listens there; a line for each port.

    """
    wanted = [str(address) for address in master_addresses(spec) if str(address) not in set(ours)]
    if listeners := taken(wanted, MASTER_PORTS):
        raise Busy(
            "\n  ".join(map(str, listeners)),
            fix="end what listens there, or choose another network.cidr; then run the same command"
            " again",
        )


def taken(addresses: Iterable[str], ports: Iterable[int]) -> list[Taken]:
    """The ports that cannot be listened at."""
    numbers = tuple(ports)
    busy = [
        (address, port) for address in addresses for port in numbers if not _free(address, port)
    ]
    holders = _holders() if busy else {}
    return [Taken(address, port, _holder(holders, address, port)) for address, port in busy]


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # connections that ended just now are in nobody's way
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _holders() -> dict[tuple[str, int], int]:
    """Who listens where, as far as this user may know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return {}
    return {
        (connection.laddr.ip, connection.laddr.port): connection.pid
        for connection in connections
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid
    }


def _holder(holders: dict[tuple[str, int], int], address: str, port: int) -> str:
    pid = next((holders[at, port] for at in (address, *EVERYWHERE) if (at, port) in holders), None)
    if pid is None:
        return ""
    try:
        return f"pid {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"pid {pid}"
