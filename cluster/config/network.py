"""Checks of a cluster's addresses and zones: each returns a list of complaints. Pure.

`mesaform.topology.addresses` relies on what is checked here: eight equal subnets, of which each
zone gets at most two, and masters in the addresses 8 to 15 of a zone's first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from mesaform.config.field_types import repeated

SUBNET_BITS = 3
"""The VPC has 2**3 subnets: one a zone for machines, and one a zone for gateways and endpoints."""

MAX_ZONES = 4
ZONES = 3
"""How many zones a cluster gets whose file names none, if the region has as many."""
RESERVED_BY_AWS = 5
"""Addresses of each subnet that AWS reserves: the first four and the last."""

RESERVED_FOR_MASTERS = 8
"""Addresses of each subnet that only masters get; the last one is AWS's own in the smallest."""

MIN_VPC_PREFIX = 16
MAX_SUBNET_PREFIX = 28
"""Prefix lengths that AWS accepts for a VPC and a subnet."""

MIN_OPERATOR_PREFIX = 8
"""Networks of operators with a shorter prefix need `open_to_the_world`."""

MAX_GROUP_RULES = 60
"""Inbound rules of a security group (VPC user guide, "Amazon VPC quotas")."""

OPERATOR_PORTS = 3
"""Ports of the masters that each network of `operator_cidrs` needs a rule for."""

OTHER_MASTER_RULES = 13
"""The other inbound rules of the masters' group, at most (`topology.ports.ingress_rules`)."""

LOOPBACK = IPv4Network("127.0.0.0/8")
LOCALHOST = IPv4Address("127.0.0.1")
NOT_FOR_A_VPC = tuple(
    IPv4Network(cidr)
    for cidr in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)


def agent_capacity(cidr: IPv4Network, zones: int) -> int:
    """How many agents fit into the machines' subnets of a VPC, beside what masters reserve.

    Each subnet also keeps an address for a node of the load balancer.
    """
    size = 1 << max(0, 32 - cidr.prefixlen - SUBNET_BITS)
    smallest = 1 << (32 - MAX_SUBNET_PREFIX)
    reserved = RESERVED_BY_AWS + RESERVED_FOR_MASTERS - (1 if size <= smallest else 0)
    return zones * max(0, size - reserved)


def vpc_problems(cidr: IPv4Network, *, is_local: bool, agents: int, zones: int) -> list[str]:
    """Complaints about the VPC's network.

    `agents` is the sum of every pool's max, `zones` the number of zones.
    """
    if cidr.prefixlen < MIN_VPC_PREFIX:
        return [f"{cidr} is larger than AWS allows: take a /{MIN_VPC_PREFIX}"]
    if cidr.prefixlen + SUBNET_BITS > MAX_SUBNET_PREFIX:
        limit = f"its subnets would be smaller than AWS allows (/{MAX_SUBNET_PREFIX})"
        return [f"{cidr} is too small: {limit}: take {_sufficient_network(agents, zones)}"]
    capacity = agent_capacity(cidr, zones)
    if capacity < agents:
        return [
            (
                f"{cidr} is too small: it has room for {capacity} agents beside the addresses "
                f"reserved for masters, every pool's max needs {agents}: "
                f"take {_sufficient_network(agents, zones)}"
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


def _sufficient_network(agents: int, zones: int) -> str:
    for prefix in range(MAX_SUBNET_PREFIX - SUBNET_BITS, MIN_VPC_PREFIX - 1, -1):
        if agent_capacity(IPv4Network((0, prefix)), zones) >= agents:
            return f"a /{prefix}" + ("" if prefix == MIN_VPC_PREFIX else " or larger")
    return "fewer machines: not even a /16 holds them"


def zone_problems(zones: Sequence[str], region: str) -> list[str]:
    """Complaints about the named zones. An empty list of zones is valid."""
    if not zones:
        return []
    problems = []
    if len(zones) > MAX_ZONES:
        problems.append(f"{len(zones)} zones, must be one to {MAX_ZONES}")
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
    if names := repeated(cidrs):
        return [f"{', '.join(names)} named more than once"]
    if open_to_the_world:
        return []
    networks = (IPv4Network(cidr) for cidr in cidrs)
    return [_too_wide(network) for network in networks if network.prefixlen < MIN_OPERATOR_PREFIX]


def rule_count_problems(cidrs: Sequence[str]) -> list[str]:
    """Complaints about the number of rules in the masters' security group, the largest one."""
    rules = OPERATOR_PORTS * len(cidrs) + OTHER_MASTER_RULES
    if rules < MAX_GROUP_RULES:
        return []
    merged = list(collapse_addresses(map(IPv4Network, cidrs)))
    hint = f"; the same addresses make {len(merged)} networks" if len(merged) < len(cidrs) else ""
    return [
        (
            f"{len(cidrs)} networks make {rules} rules in the masters' security group, which must "
            f"stay below {MAX_GROUP_RULES}: merge networks{hint}"
        )
    ]


def exclusive_problems(
    mode: str, given: Iterable[tuple[str, object, tuple[str, ...]]]
) -> list[tuple[str, str]]:
    """Complaints about settings that the mode of the network does not have.

    `given` has a setting's name, its value, and the modes that have it. Falsy values are not given.
    """
    return [
        (name, f"only for network.mode {' or '.join(modes)}, this is {mode}")
        for name, value, modes in given
        if value and mode not in modes
    ]


def _too_wide(network: IPv4Network) -> str:
    who = "everybody" if network.prefixlen == 0 else "too many"
    return f"{network} lets in {who}: name your own networks, or set open_to_the_world: true"
