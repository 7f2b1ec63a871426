"""What a cluster's network costs by the hour besides its machines: kinds and counts. Pure.

Traffic is not listed: NAT gateways, load balancers and endpoints also bill each GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mesaform.topology.endpoints import interface_endpoints

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

ItemKind = Literal[
    "address",
    "NAT gateway",
    "interface endpoint",
    "load balancer",
    "private hosted zone",
]


@dataclass(frozen=True, slots=True)
class HourlyItem:
    """A number of things that AWS bills by the hour. `purpose` is for people.

    Addresses are public IPv4 ones. An interface endpoint is billed in each zone, so `count` is
    endpoints times zones. A hosted zone is billed by the month.
    """

    kind: ItemKind
    count: int
    purpose: str = ""


def nat_gateway_count(spec: ClusterSpec) -> int:
    """How many NAT gateways the cluster has."""
    if spec.network.mode != "private" or spec.network.nat == "none":
        return 0
    return 1 if spec.network.nat == "single" else len(spec.zones)


def hourly_items(spec: ClusterSpec) -> tuple[HourlyItem, ...]:
    """The fixed items of a cluster's network; the addresses of machines are the machines' own."""
    zones, balancer = len(spec.zones), spec.network.load_balancer
    nodes = zones if balancer and not spec.network.is_balancer_internal else 0
    nat = nat_gateway_count(spec)
    items = (
        HourlyItem("NAT gateway", nat),
        HourlyItem("address", nat, "of NAT gateways"),
        HourlyItem("interface endpoint", len(interface_endpoints(spec)) * zones),
        HourlyItem("load balancer", 1 if balancer else 0),
        HourlyItem("address", nodes, "of load balancer"),
        HourlyItem("private hosted zone", 1 if spec.network.private_dns else 0),
    )
    return tuple(item for item in items if item.count)
