"""Checks of a cluster's addresses and zones: each returns a list of complaints. Pure.

`mesaform.topology.addresses` relies on what is checked here: eight equal subnets, the tenth address
for a master.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from mesaform.config.field_types import repeated

SUBNET_BITS = 3
"""The VPC has 2**3 subnets, of which three are in use."""

ZONES = 3
RESERVED_BY_AWS = 5
"""Addresses of each subnet that AWS reserves: the first four and the last."""

MIN_VPC_PREFIX = 16
MAX_SUBNET_PREFIX = 28
"""Prefix lengths that AWS accepts for a VPC and a subnet."""

MIN_OPERATOR_PREFIX = 8
"""Networks of operators with a shorter prefix need `open_to_the_world`."""

LOOPBACK = IPv4Network("127.0.0.0/8")
LOCALHOST = IPv4Address("127.0.0.1")
NOT_FOR_A_VPC = tuple(
    IPv4Network(cidr)
    for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


def machine_capacity(cidr: IPv4Network) -> int:
    """How many machines fit into the three subnets of a VPC."""
    per_subnet = (1 << max(0, 32 - cidr.prefixlen - SUBNET_BITS)) - RESERVED_BY_AWS
    return ZONES * max(0, per_subnet)


def vpc_problems(cidr: IPv4Network, *, is_local: bool, machines: int) -> list[str]:
    """Complaints about the VPC's network.

    `machines` is the sum of the masters and of every pool's max.
    """
    if cidr.prefixlen < MIN_VPC_PREFIX:
        return [f"{cidr} is larger than AWS allows: take a /{MIN_VPC_PREFIX}"]
    if cidr.prefixlen + SUBNET_BITS > MAX_SUBNET_PREFIX:
        limit = f"its subnets would be smaller than AWS allows (/{MAX_SUBNET_PREFIX})"
        return [f"{cidr} is too small: {limit}: take {_sufficient_network(machines)}"]
    capacity = machine_capacity(cidr)
    if capacity < machines:
        needs = f"masters and every pool's max need {machines}"
        return [
            (
                f"{cidr} is too small: it has room for {capacity} machines, {needs}: "
                f"take {_sufficient_network(machines)}"
            )
        ]
    return _loopback_problems(cidr) if is_local else _reserved_problems(cidr)


def _reserved_problems(cidr: IPv4Network) -> list[str]:
    reserved = next((network for network in NOT_FOR_A_VPC if cidr.overlaps(network)), None)
    if reserved is None:
        return []
    return [f"{cidr} lies in {reserved}, which AWS takes for no VPC: take one such as 10.42.0.0/16"]


def _loopback_problems(cidr: IPv4Network) -> list[str]:
    if not cidr.subnet_of(LOOPBACK):
        return [
            (
                f"{cidr} is not inside {LOOPBACK}: on the local target every machine is a process "
                "with an address that Linux can bind"
            )
        ]
    if LOCALHOST in cidr:
        return [
            f"{cidr} holds {LOCALHOST}, which is this host's own: take one such as 127.42.0.0/16"
        ]
    return []


def _sufficient_network(machines: int) -> str:
    for prefix in range(MAX_SUBNET_PREFIX - SUBNET_BITS, MIN_VPC_PREFIX - 1, -1):
        if machine_capacity(IPv4Network((0, prefix))) >= machines:
            return f"a /{prefix}" + ("" if prefix == MIN_VPC_PREFIX else " or larger")
    return "fewer machines: not even a /16 holds them"


def zone_problems(zones: Sequence[str], region: str) -> list[str]:
    """Complaints about the named zones. An empty list of zones is valid."""
    if not zones:
        return []
    problems = []
    if len(zones) != ZONES:
        reason = "one per master, so that the loss of a zone leaves a quorum"
        problems.append(f"{len(zones)} zones, must be exactly {ZONES}, {reason}")
    if names := repeated(zones):
        problems.append(f"{', '.join(names)} named more than once")
    problems += [
        f"{zone!r} is not a zone of {region}: they are called {region}a, {region}b, …"
        for zone in sorted(set(zones))
        if not _is_zone_of(zone, region)
    ]
    return problems


def _is_zone_of(zone: str, region: str) -> bool:
    letter = zone.removeprefix(region)
    return zone.startswith(region) and len(letter) == 1 and letter.isalpha()


def operator_problems(
    cidrs: Sequence[str], *, is_local: bool, open_to_the_world: bool
) -> list[str]:
    """Complaints about the networks of the operators."""
    if not cidrs:
        if is_local:
            return ["at least one network must be named"]
        return [
            (
                "must be given on aws: the networks from which masters may be reached, "
                "such as your own address as 203.0.113.7/32"
            )
        ]
    if open_to_the_world:
        return []
    networks = (IPv4Network(cidr) for cidr in cidrs)
    return [_too_wide(network) for network in networks if network.prefixlen < MIN_OPERATOR_PREFIX]


def _too_wide(network: IPv4Network) -> str:
    who = "everybody" if network.prefixlen == 0 else "too many"
    return f"{network} lets in {who}: name your own networks, or set open_to_the_world: true"
