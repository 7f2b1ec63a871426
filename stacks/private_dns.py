"""A private zone of Route 53 with the names of the masters and of their services."""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.topology import addresses
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack

TTL_S = 60


def add_private_zone(
    stack: ClusterStack, vpc_id: str, master_addresses: Sequence[str], balancer_name: str | None
) -> None:
    """Add the zone.

    Args:
        stack: the stack.
        vpc_id: the VPC in which the names are known.
        master_addresses: the masters' private addresses.
        balancer_name: the load balancer's DNS name; None without one.

    """
    spec = stack.spec
    domain = spec.network.private_dns
    zone = aws.Route53Zone(
        stack,
        "zone",
        name=domain,
        comment=f"Masters of the Mesos cluster {spec.name}",
        vpc=[aws.Route53ZoneVpc(vpc_id=vpc_id)],
        force_destroy=True,
        tags=stack.named("zone"),
    )
    records = {
        name: [address]
        for name, address in zip(addresses.master_names(spec), master_addresses, strict=True)
    }
    records |= {name: list(master_addresses) for name in addresses.service_names(spec)}
    for name, values in records.items():
        _record(stack, zone, "A", name, values)
    balancer = spec.network.load_balancer
    host_name = balancer.host_name if balancer else None
    if host_name and balancer_name and host_name.endswith(f".{domain}"):
        _record(stack, zone, "CNAME", host_name, [balancer_name])


def _record(
    stack: ClusterStack, zone: aws.Route53Zone, kind: str, name: str, values: list[str]
) -> None:
    aws.Route53Record(
        stack,
        f"name-{name.replace('.', '-')}",
        zone_id=zone.zone_id,
        name=name,
        type=kind,
        ttl=TTL_S,
        records=values,
    )
