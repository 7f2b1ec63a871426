"""Claims of this host's addresses: one for each local VPC, visible to all local clouds.

All local clouds share the host's loopback addresses and its routes: with VPCs that overlap two
machines would have the same address. Where machines are processes, only VPCs in 127.0.0.0/8 need a
claim; where they are containers, every VPC does. A claim is a socket in Linux's abstract namespace,
named after the network and the local cloud's folder. The kernel lists it in `/proc/net/unix` and
removes it when its process ends.
"""

from __future__ import annotations

import socket
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

PREFIX = "mesaform-local"
LOOPBACK = IPv4Network("127.0.0.0/8")
EVERYWHERE = IPv4Network("0.0.0.0/0")
MAX_NAME_BYTES = 100
"""The longest name of a claim; the kernel's limit is 107 (unix(7))."""
DEFAULT_OCTETS = (31, *range(200, 255))
"""Second octets of default VPCs. The default network of a cluster is not among them."""
PRIVATE_OCTETS = (31, *range(18, 31))
"""Likewise of containers, in 172.16.0.0/12; 172.17.0.0/16 is Docker's."""
_BRIDGE = "mfb"
"""What the names of local clouds' own bridges begin with (`containers.names`)."""
_LISTEN = "0A"
"""The state LISTEN in /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A network that the local cloud in the folder `root` uses; of a long path only the end."""

    network: IPv4Network
    root: str


def listed() -> list[Claim]:
    """All claims on this host."""
    claims = []
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        _, mark, name = line.partition(f" @{PREFIX}/")
        parts = name.split("/", 2)
        if mark and len(parts) == 3:
            claims.append(Claim(IPv4Network(f"{parts[0]}/{parts[1]}"), parts[2]))
    return claims


def find_overlap(network: IPv4Network, root: Path) -> Claim | None:
    """A claim that overlaps the network, of another local cloud than the one in `root`."""
    return next(
        (
            claim
            for claim in listed()
            if claim.network.overlaps(network) and claim.root != _short(root)
        ),
        None,
    )


def overlap_text(network: IPv4Network, other: Claim) -> str:
    """The conflict as a sentence for the operator."""
    return (
        f"{network} overlaps {other.network}, "
        f"which the local cloud in {other.root} uses on this host"
    )


def busy_addresses() -> set[IPv4Address]:
    """The host's addresses at which programs listen; only local clouds claim their networks."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {
        IPv4Address(bytes.fromhex(field[1][:8])[::-1]) for field in fields if field[3] == _LISTEN
    }


def default_networks(root: Path, scope: IPv4Network = LOOPBACK) -> Iterator[IPv4Network]:
    """Candidates for a default VPC: 127.31.0.0/16, then others in an order set by the folder.

    With the scope of containers 172.31.0.0/16, which is AWS's, and others.
    """
    top, octets = (127, DEFAULT_OCTETS) if scope == LOOPBACK else (172, PRIVATE_OCTETS)
    first, *others = octets
    start = zlib.crc32(str(root).encode()) % len(others)
    for octet in (first, *others[start:], *others[:start]):
        yield IPv4Network(f"{top}.{octet}.0.0/16")


def routed_networks(table: Path = Path("/proc/net/route")) -> list[IPv4Network]:
    """The networks that this host reaches by a route of its own, without those of local clouds."""
    rows = (line.split() for line in table.read_text().splitlines()[1:])
    networks = (
        (row[0], IPv4Network((_address(row[1]), int(_address(row[7])).bit_count()), strict=False))
        for row in rows
    )
    return [
        network
        for device, network in networks
        if network.prefixlen > 0 and not device.startswith(_BRIDGE)
    ]


def _address(hexadecimal: str) -> int:
    return int.from_bytes(bytes.fromhex(hexadecimal), "little")


def _short(root: Path) -> str:
    text = str(root)
    return text if len(text) <= MAX_NAME_BYTES - 40 else "…" + text[-(MAX_NAME_BYTES - 45) :]


@dataclass(slots=True)
class NetworkClaims:
    """The claims of one local cloud, held by this process; networks outside `scope` need none."""

    root: Path
    scope: IPv4Network = LOOPBACK
    _held: dict[IPv4Network, list[socket.socket]] = field(default_factory=dict)

    def take(self, network: IPv4Network) -> Claim | None:
        """Claim a network; returns the overlapping claim of another local cloud, else None."""
        if not network.subnet_of(self.scope):
            return None
        held = self._held.setdefault(network, [])
        # Bind before looking: of two that claim at the same time each sees the other.
        held.append(_bound(network, self.root))
        if other := find_overlap(network, self.root):
            self.release(network)
            return other
        return None

    def holds(self, network: IPv4Network) -> bool:
        """Whether a claim of this local cloud overlaps the network."""
        return any(held and own.overlaps(network) for own, held in self._held.items())

    def release(self, network: IPv4Network) -> None:
        """Release one claim; a network that was claimed twice has to be released twice."""
        held = self._held.get(network, [])
        if held:
            held.pop().close()

    def match(self, networks: Iterable[IPv4Network]) -> None:
        """Hold the claims of exactly these networks; one of another local cloud is skipped."""
        wanted = Counter(network for network in networks if network.subnet_of(self.scope))
        for network, held in self._held.items():
            while len(held) > wanted[network]:
                self.release(network)
        for network, count in wanted.items():
            for _ in range(count - len(self._held.get(network, ()))):
                self.take(network)


def _bound(network: IPv4Network, root: Path) -> socket.socket:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0{PREFIX}/{network}/{_short(root)}".encode())
    except OSError:  # this local cloud has it already
        claim.close()
    return claim
