"""Limits of connections to the link port, which gRPC accepts by itself.

gRPC counts all connections, but not those of one peer, and it does not show those that are in their
handshake. `LinkConnections` looks at the process's own sockets instead, and ends what a peer holds
beyond its limit without a link. Depends on /proc.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

log = structlog.get_logger("mesaform.master")

SWEEP_S = 1.0
PEER_CONNECTIONS = 16
"""Connections of one address that carry no link: an agent needs one, and one more to move."""
USUAL_FILES = 128
"""Open files besides links below which nobody floods the port: no socket is looked at."""
OWN_FILES = Path("/proc/self/fd")

MAPPED = "::ffff:"
"""How an address of IPv4 begins on a socket of IPv6."""

Peer = tuple[str, int]
"""Address and port of the other end of a connection."""


def most_connections() -> int:
    """How many connections gRPC may accept: half of the files that the process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (soft if soft > 0 else 2**20) // 2)


class LinkConnections:
    """The connections to one listening address.

    Args:
        address: address and port that gRPC listens on.

    """

    def __init__(self, address: Peer) -> None:
        self._address = address
        self._seen: set[Peer] = set()

    def sweep(self, linked: AbstractSet[Peer]) -> int:
        """End what peers hold beyond their limit, longest held first; how many were ended.

        Args:
            linked: peers of connections that carry a link. They are never ended.

        """
        if sum(1 for _ in OWN_FILES.iterdir()) <= USUAL_FILES + len(linked):
            self._seen = set()
            return 0
        by_host: dict[str, list[tuple[Peer, socket.socket]]] = defaultdict(list)
        with contextlib.ExitStack() as stack:
            for peer, connection in self._connections():
                stack.callback(connection.close)
                if peer not in linked:
                    by_host[peer[0]].append((peer, connection))
            ended = sum(self._end_excess(host, items) for host, items in by_host.items())
        self._seen = {peer for items in by_host.values() for peer, _ in items}
        return ended

    def _end_excess(self, host: str, items: list[tuple[Peer, socket.socket]]) -> int:
        excess = len(items) - PEER_CONNECTIONS
        if excess <= 0:
            return 0
        items.sort(key=lambda item: item[0] not in self._seen)
        for _, connection in items[:excess]:
            with contextlib.suppress(OSError):  # it ended in the meantime
                connection.shutdown(socket.SHUT_RDWR)
        log.warning("link_connections_ended", peer=host, count=excess)
        return excess

    def _connections(self) -> Iterator[tuple[Peer, socket.socket]]:
        """Duplicates of the connections' sockets: gRPC owns the originals, and sees their end."""
        for entry in list(OWN_FILES.iterdir()):
            connection = _duplicate(int(entry.name))
            if connection is None:
                continue
            try:
                if _plain(connection.getsockname()) == self._address:
                    yield _plain(connection.getpeername()), connection
                    continue
            except OSError:
                pass  # it listens, or its peer is gone
            connection.close()


def _plain(address: tuple[str, int]) -> Peer:
    """An address of IPv4 also where gRPC has a socket for both families."""
    return str(address[0]).removeprefix(MAPPED), int(address[1])


def _duplicate(number: int) -> socket.socket | None:
    """A socket of its own for an open file; None if the file is no socket of TCP, or gone."""
    try:
        copy = os.dup(number)
    except OSError:
        return None
    try:
        duplicate = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    if duplicate.family in {socket.AF_INET, socket.AF_INET6}:
        return duplicate
    duplicate.close()
    return None
