"""Who uses which part of 127.0.0.0/8 on this host: a claim for each local VPC, which all local clouds can read.

All local clouds share the host's loopback addresses, so two VPCs that overlap would give the same address to two machines. A
claim is a socket in Linux's abstract namespace, named after the network and the local cloud's folder: the kernel lists it to
everybody (`/proc/net/unix`) and takes it away when its process ends, however it ends.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

PREFIX = "mesaform-local"
LOOPBACK = IPv4Network("127.0.0.0/8")
LONGEST_NAME = 100  # bytes; the kernel takes 107
DEFAULT_OCTETS = (
    31,
    *range(200, 255),
)  # second octets of default VPCs; a product's clusters are elsewhere by default
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Claim:
    """A network in use by the local cloud whose folder is `root` (its end, if it is long)."""

    network: IPv4Network
    root: str


def listed() -> list[Claim]:
    """All claims on this host."""
    found = []
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        _, mark, name = line.partition(f" @{PREFIX}/")
        parts = name.split("/", 2)
        if mark and len(parts) == 3:
            found.append(Claim(IPv4Network(f"{parts[0]}/{parts[1]}"), parts[2]))
    return found


def find_overlap(network: IPv4Network, root: Path) -> Claim | None:
    """A claim of another local cloud than `root`'s that overlaps the network."""
    return next(
        (
            claim
            for claim in listed()
            if claim.network.overlaps(network) and claim.root != _short(root)
        ),
        None,
    )


def overlap_text(network: IPv4Network, other: Claim) -> str:
    """What a person is told."""
    return f"{network} overlaps {other.network}, which the local cloud in {other.root} uses on this host"


def busy_addresses() -> set[IPv4Address]:
    """The addresses of this host's own that somebody listens at; programs other than local clouds have no claims."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return {
        IPv4Address(bytes.fromhex(field[1][:8])[::-1]) for field in fields if field[3] == _LISTEN
    }


def default_networks(root: Path) -> Iterator[IPv4Network]:
    """What a default VPC may be: 127.31.0.0/16 first, then others in an order of the folder's own."""
    first, *others = DEFAULT_OCTETS
    start = zlib.crc32(str(root).encode()) % len(others)
    for octet in (first, *others[start:], *others[:start]):
        yield IPv4Network(f"127.{octet}.0.0/16")


def _short(root: Path) -> str:
    text = str(root)
    return text if len(text) <= LONGEST_NAME - 40 else "…" + text[-(LONGEST_NAME - 45) :]


@dataclass(slots=True)
class NetworkClaims:
    """The claims of one local cloud, held by this process."""

    root: Path
    _held: dict[IPv4Network, list[socket.socket]] = field(default_factory=dict)

    def take(self, network: IPv4Network) -> Claim | None:
        """Claim a network; None when it is ours, else the claim of another that is in the way. Outside of 127.0.0.0/8 all is free."""
        if not network.subnet_of(LOOPBACK):
            return None
        held = self._held.setdefault(network, [])
        held.append(
            _bound(network, self.root)
        )  # first: of two that come at the same time each sees the other
        if other := find_overlap(network, self.root):
            self.release(network)
            return other
        return None

    def holds(self, network: IPv4Network) -> bool:
        """Whether any claim of ours overlaps the network."""
        return any(held and ours.overlaps(network) for ours, held in self._held.items())

    def release(self, network: IPv4Network) -> None:
        """Give one claim back; a network that was taken twice stays ours until it was given back twice."""
        held = self._held.get(network, [])
        if held:
            held.pop().close()


def _bound(network: IPv4Network, root: Path) -> socket.socket:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0{PREFIX}/{network}/{_short(root)}".encode())
    except OSError:  # ours already
        claim.close()
    return claim
