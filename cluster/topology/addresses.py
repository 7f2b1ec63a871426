"""Subnets and fixed addresses of a cluster's VPC. `config.network` checks that they fit."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

SUBNET_BITS = 3
"""The VPC's CIDR is divided into 2**3 equal subnets: four for machines, four for services."""

MAX_ZONES = 4

FIRST_MASTER_OFFSET = 10
"""Offset of a zone's first master in its subnet. AWS reserves the first four addresses."""


def subnets(spec: ClusterSpec) -> tuple[IPv4Network, ...]:
    """The machines' subnets, one per zone in the order of the zones; none of an existing VPC."""
    return _part(spec, 0)


def service_subnets(spec: ClusterSpec) -> tuple[IPv4Network, ...]:
    """The subnets of gateways, endpoints and the load balancer of mode private, one per zone."""
    return _part(spec, MAX_ZONES) if spec.network.mode == "private" else ()


def _part(spec: ClusterSpec, first: int) -> tuple[IPv4Network, ...]:
    if spec.network.mode == "existing":
        return ()
    equal = tuple(IPv4Network(spec.network.cidr).subnets(prefixlen_diff=SUBNET_BITS))
    return equal[first : first + len(spec.zones)]


def reserved_for_masters(subnet: IPv4Network) -> IPv4Network:
    """Addresses 8 to 15 of a subnet, which EC2 assigns only on request.

    Without the reservation an agent could get the fixed address of a master that is being replaced.
    """
    return IPv4Network((subnet.network_address + 8, 29))


def master_addresses(spec: ClusterSpec) -> tuple[IPv4Address, ...]:
    """The masters' fixed private addresses, spread over the zones' subnets in turn.

    Empty in an existing VPC: EC2 assigns the addresses of the masters' interfaces there.
    """
    zones = subnets(spec)
    if not zones:
        return ()
    return tuple(
        zones[index % len(zones)].network_address + FIRST_MASTER_OFFSET + index // len(zones)
        for index in range(spec.masters.count)
    )


def master_zones(spec: ClusterSpec) -> tuple[str, ...]:
    """The zone of each master."""
    return tuple(spec.zones[index % len(spec.zones)] for index in range(spec.masters.count))


def master_names(spec: ClusterSpec) -> tuple[str, ...]:
    """The private DNS name of each master; none without a private zone."""
    zone = spec.network.private_dns
    if zone is None:
        return ()
    return tuple(f"master-{index + 1}.{zone}" for index in range(spec.masters.count))


SERVICE_NAMES = ("masters", "services", "autoscaler")
"""Names in the private zone that have the addresses of all masters."""


def service_names(spec: ClusterSpec) -> tuple[str, ...]:
    """The private DNS names with the addresses of all masters; none without a private zone."""
    zone = spec.network.private_dns
    return tuple(f"{name}.{zone}" for name in SERVICE_NAMES) if zone else ()


def existing_subnet_filters(spec: ClusterSpec) -> dict[str, list[str]]:
    """EC2's filters of the machines' subnets in an existing VPC; none for a VPC of our own."""
    wanted = spec.network.existing
    if spec.network.mode != "existing" or wanted is None:
        return {}
    filters = {f"tag:{key}": [value] for key, value in wanted.subnet_tags.items()}
    if wanted.subnet_ids:
        filters["subnet-id"] = list(wanted.subnet_ids)
    return filters | {"availability-zone": list(spec.zones)}
