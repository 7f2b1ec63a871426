"""Whether a cluster's addresses and zones can work, as pure functions of plain values: each answer is a list of complaints.

The arithmetic of `mesaform.topology.addresses` relies on what is checked here: eight equal subnets, the tenth address for a master.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

SUBNET_BITS = 3  # the VPC is cut into eight; three are in use
ZONES = 3
KEPT_BY_AWS = 5  # the first four addresses and the last of each subnet
LARGEST_VPC, SMALLEST_SUBNET = 16, 28  # prefix lengths that AWS takes
WIDEST_OPERATOR = 8
LOOPBACK = IPv4Network("127.0.0.0/8")
HOST_OWN = IPv4Address("127.0.0.1")
NOT_FOR_A_VPC = tuple(
    IPv4Network(cidr)
    for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


def room(cidr: IPv4Network) -> int:
    """How many machines fit into the three subnets of a VPC."""
    each = (1 << max(0, 32 - cidr.prefixlen - SUBNET_BITS)) - KEPT_BY_AWS
    return ZONES * max(0, each)


def vpc_problems(cidr: IPv4Network, *, local: bool, machines: int) -> list[str]:
    """What is wrong with the VPC's network for `machines` (masters and every pool's max)."""
    if cidr.prefixlen < LARGEST_VPC:
        return [f"{cidr} is larger than AWS allows: take a /{LARGEST_VPC}"]
    if cidr.prefixlen + SUBNET_BITS > SMALLEST_SUBNET:
        return [
            f"{cidr} is too small: its subnets would be smaller than AWS takes (/{SMALLEST_SUBNET}): take {_enough(machines)}"
        ]
    if room(cidr) < machines:
        needs = f"masters and every pool's max need {machines}"
        return [
            f"{cidr} is too small: it has room for {room(cidr)} machines, {needs}: take {_enough(machines)}"
        ]
    if local:
        return _local_problems(cidr)
    if inside := next((taboo for taboo in NOT_FOR_A_VPC if cidr.overlaps(taboo)), None):
        return [
            f"{cidr} lies in {inside}, which AWS takes for no VPC: take one such as 10.42.0.0/16"
        ]
    return []


def _local_problems(cidr: IPv4Network) -> list[str]:
    if not cidr.subnet_of(LOOPBACK):
        return [
            f"{cidr} is not inside {LOOPBACK}: on the local target every machine is a process with an address that Linux can bind"
        ]
    if HOST_OWN in cidr:
        return [
            f"{cidr} holds {HOST_OWN}, which is this host's own: take one such as 127.42.0.0/16"
        ]
    return []


def _enough(machines: int) -> str:
    for prefix in range(SMALLEST_SUBNET - SUBNET_BITS, LARGEST_VPC - 1, -1):
        if room(IPv4Network((0, prefix))) >= machines:
            return f"a /{prefix}" + ("" if prefix == LARGEST_VPC else " or larger")
    return "fewer machines: not even a /16 holds them"


def zone_problems(zones: Sequence[str], region: str) -> list[str]:
    """What is wrong with the named zones; naming none is right."""
    if not zones:
        return []
    problems = []
    if len(zones) != ZONES:
        problems.append(
            f"{len(zones)} zones, must be exactly {ZONES}, one a master: so a zone's loss leaves a quorum"
        )
    if repeated := sorted({zone for zone in zones if zones.count(zone) > 1}):
        problems.append(f"{', '.join(repeated)} named more than once")
    problems += [
        f"{zone!r} is not a zone of {region}: they are called {region}a, {region}b, …"
        for zone in sorted(set(zones))
        if not (zone.startswith(region) and len(zone) == len(region) + 1 and zone[-1].isalpha())
    ]
    return problems


def operator_problems(cidrs: Sequence[str], *, local: bool, open_to_the_world: bool) -> list[str]:
    """What is wrong with where operators come from."""
    if not cidrs:
        if local:
            return ["at least one network must be named"]
        return [
            "must be given on aws: the networks from which masters may be reached, such as your own address as 203.0.113.7/32"
        ]
    if open_to_the_world:
        return []
    return [
        f"{cidr} lets in {'everybody' if network.prefixlen == 0 else 'too many'}: name your own networks, or set open_to_the_world: true"
        for cidr, network in ((cidr, IPv4Network(cidr)) for cidr in cidrs)
        if network.prefixlen < WIDEST_OPERATOR
    ]
