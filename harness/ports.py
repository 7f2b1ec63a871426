"""Ports for servers of tests, which no other process of the run takes in between.

A port that the kernel chooses (bind to 0) lies in the range of outgoing connections: before the
server listens, a connection of another test may use it. These ports lie below that range
(net.ipv4.ip_local_port_range starts at 32768), and each xdist worker has a part of its own.
"""

from __future__ import annotations

import itertools
import os
import socket

FIRST, PER_WORKER, WORKERS = 12000, 1200, 16

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_offsets = itertools.count(os.getpid() % PER_WORKER)


def free_port(address: str) -> int:
    """A port at which nobody listens; each call gives another one."""
    for _ in range(PER_WORKER):
        port = FIRST + _worker * PER_WORKER + next(_offsets) % PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port at {address}")
