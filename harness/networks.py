"""Networks of loopback addresses for clusters of tests, which no other run on this host uses.

A claim is a socket with a name in the kernel: of two processes only one can have it, and it ends
with its process. Depends on Linux.
"""

from __future__ import annotations

import contextlib
import random
import socket

from mesaform.topology.ports import Port

NETS = (*range(133, 163), *range(164, 200))
"""The second parts of addresses 127.x.y.z that may be claimed. Local clouds choose default networks
from 200 on, and other tests have addresses below 133.
"""


class ClaimedNet:
    """A network 127.<net>.0.0/16 until `release`, or the end of the process."""

    def __init__(self, net: int, claim: socket.socket) -> None:
        self.net = net
        self._claim = claim

    @property
    def cidr(self) -> str:
        """The network."""
        return f"127.{self.net}.0.0/16"

    def address(self, rest: str) -> str:
        """An address of it, such as `127.201.0.10` for `0.10`."""
        return f"127.{self.net}.{rest}"

    def release(self) -> None:
        """Let others claim it. Idempotent."""
        self._claim.close()


def claim_net() -> ClaimedNet:
    """A network that nobody has claimed, and in which no master listens.

    Raises:
        RuntimeError: all are in use.

    """
    for net in random.SystemRandom().sample(NETS, len(NETS)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0mesaform-test-network-{net}")
        except OSError:
            claim.close()
            continue
        if _is_free(net):
            return ClaimedNet(net, claim)
        claim.close()
    raise RuntimeError(f"all {len(NETS)} networks for tests are in use on this host")


def _is_free(net: int) -> bool:
    """Whether a first master could listen: a cluster that was no test's may run there."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((f"127.{net}.0.10", Port.ENGINE_MASTER))
        return True
    return False
