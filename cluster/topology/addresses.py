"""Subnets and fixed addresses of a cluster's VPC. `config.network` checks that they fit."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

SUBNET_BITS = 3
"""The VPC's CIDR is divided into 2**3 equal subnets, of which each zone gets one."""

FIRST_MASTER_OFFSET = 10
"""Offset of a zone's first master in its subnet. AWS reserves the first four addresses."""


def subnets(spec: ClusterSpec) -> tuple[IPv4Network, ...]:
    """One subnet per zone, in the order of the zones."""
    network = IPv4Network(spec.network.cidr)
    return tuple(network.subnets(prefixlen_diff=SUBNET_BITS))[: len(spec.zones)]


def reserved_for_masters(subnet: IPv4Network) -> IPv4Network:
    """Addresses 8 to 15 of a subnet, which EC2 assigns only on request.

    Without the reservation an agent could get the fixed address of a master that is being replaced.
    """
    return IPv4Network((subnet.network_address + 8, 29))


def master_addresses(spec: ClusterSpec) -> tuple[IPv4Address, ...]:
    """The masters' fixed private addresses, spread over the zones' subnets in turn."""
    zones = subnets(spec)
    return tuple(
        zones[index % len(zones)].network_address + FIRST_MASTER_OFFSET + index // len(zones)
        for index in range(spec.masters.count)
    )
