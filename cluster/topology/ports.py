"""Listening ports, and the ingress rules of the security groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mesaform.topology.capacity import TASK_PORTS
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


Group = Role | Literal["load-balancer", "endpoint"]
"""The cluster's security groups, by what they belong to."""

HTTPS = 443


@dataclass(frozen=True, slots=True)
class IngressRule:
    """Permission to reach ports of a group.

    `source` is a CIDR or the name of a security group of this cluster.
    """

    group: Group
    first_port: int
    last_port: int
    source: str
    why: str


_BETWEEN_MASTERS = {
    Port.ZOOKEEPER_CLIENT: "masters to ZooKeeper",
    Port.ZOOKEEPER_PEER: "quorum of ZooKeeper",
    Port.ZOOKEEPER_ELECTION: "election of ZooKeeper",
    Port.ENGINE_MASTER: "masters to the leading engine master",
    Port.SERVICES: "masters to the leading services",
    Port.AUTOSCALER: "masters to the leading autoscaler",
}
_AGENTS_TO_MASTERS = {
    Port.ZOOKEEPER_CLIENT: "agents find the leading master, and read their lease",
    Port.ENGINE_MASTER: "agents and frameworks in tasks to the engine master",
    Port.AUTOSCALER: "agents report their end to the autoscaler",
}
_OF_AGENTS = {
    (Port.ENGINE_AGENT, Port.ENGINE_AGENT): "masters to the engine agent",
    TASK_PORTS: "masters to tasks and to schedulers that run as tasks",
}


def groups(spec: ClusterSpec) -> tuple[Group, ...]:
    """The security groups that the cluster needs."""
    wanted: list[Group] = ["master", "agent"]
    if spec.network.load_balancer:
        wanted.append("load-balancer")
    if needs_endpoints(spec):
        wanted.append("endpoint")
    return tuple(wanted)


def needs_endpoints(spec: ClusterSpec) -> bool:
    """Whether machines reach AWS through interface endpoints only."""
    return spec.network.mode == "private" and spec.network.nat == "none"


def ingress_rules(spec: ClusterSpec) -> tuple[IngressRule, ...]:
    """All permissions.

    Operators reach `OPERATOR_PORTS` of masters, or of the load balancer. Agents reach of masters
    only the ports that agents use. Masters reach the agent's port, and the ports that offers
    have, for health checks of tasks and for schedulers that run as tasks. Tasks reach each other
    at the ports of offers.
    """
    return (
        *_operator_rules(spec, "master"),
        *_rules_of_masters("master", _BETWEEN_MASTERS),
        *_rules_of_masters("agent", _AGENTS_TO_MASTERS | _link_port(spec)),
        *(IngressRule("agent", *span, "master", why) for span, why in _OF_AGENTS.items()),
        IngressRule("agent", *TASK_PORTS, "agent", "tasks to tasks"),
        *_balancer_rules(spec),
        *_endpoint_rules(spec),
    )


def _operator_rules(spec: ClusterSpec, group: Group) -> tuple[IngressRule, ...]:
    return tuple(
        IngressRule(group, port, port, cidr, f"operators to {port}")
        for port in OPERATOR_PORTS
        for cidr in spec.network.operator_cidrs
    )


def _balancer_rules(spec: ClusterSpec) -> tuple[IngressRule, ...]:
    if not spec.network.load_balancer:
        return ()
    inside = tuple(
        IngressRule("master", port, port, "load-balancer", f"load balancer to {port}")
        for port in OPERATOR_PORTS
    )
    return (*_operator_rules(spec, "load-balancer"), *inside)


def _endpoint_rules(spec: ClusterSpec) -> tuple[IngressRule, ...]:
    if not needs_endpoints(spec):
        return ()
    sources: tuple[Role, ...] = ("master", "agent")
    return tuple(
        IngressRule("endpoint", HTTPS, HTTPS, source, f"{source}s to AWS") for source in sources
    )


def _rules_of_masters(source: Role, reasons: Mapping[int, str]) -> tuple[IngressRule, ...]:
    return tuple(IngressRule("master", port, port, source, why) for port, why in reasons.items())


def _link_port(spec: ClusterSpec) -> dict[int, str]:
    """The link of the embedded engine; agents of Apache Mesos use 5050 only."""
    link = {Port.ENGINE_LINK: "agents to the leading engine master"}
    return link if spec.engine == "embedded" else {}
