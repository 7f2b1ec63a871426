"""Listening ports, and the ingress rules of the security groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesaform.topology.user_data import Role

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec


class Port:
    """Listening ports; the same on every machine, since each has its own address."""

    ENGINE_MASTER = 5050
    ENGINE_AGENT = 5051
    ENGINE_LINK = 5052
    """gRPC between the embedded engine's agents and the leading master; members only."""
    SERVICES = 8080
    AUTOSCALER = 9550
    ZOOKEEPER_CLIENT = 2181
    ZOOKEEPER_PEER = 2888
    ZOOKEEPER_ELECTION = 3888


OPERATOR_PORTS = (Port.ENGINE_MASTER, Port.SERVICES, Port.AUTOSCALER)
"""Ports of the masters that operators reach from `network.operator_cidrs`."""


@dataclass(frozen=True, slots=True)
class IngressRule:
    """Permission to reach ports of a group.

    `source` is a CIDR or the name of a security group of this cluster.
    """

    group: Role
    first_port: int
    last_port: int
    source: str
    why: str


def ingress_rules(spec: ClusterSpec) -> tuple[IngressRule, ...]:
    """All permissions: operators reach `OPERATOR_PORTS` of masters, members reach each other."""
    from_operators = tuple(
        IngressRule("master", port, port, cidr, f"operators to {port}")
        for port in OPERATOR_PORTS
        for cidr in spec.network.operator_cidrs
    )
    groups: tuple[Role, ...] = ("master", "agent")
    between_members = tuple(
        IngressRule(group, 0, 65535, source, f"{source}s to {group}s")
        for group in groups
        for source in groups
    )
    return from_operators + between_members
