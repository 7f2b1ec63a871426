"""Whether machines and the builder reach the internet, and whether the account forbids it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mesaform.aws import account_facts, subnet_routes
from mesaform.aws.subnet_routes import SubnetFacts
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Examination
from mesaform.topology.addresses import existing_subnet_filters
from mesaform.topology.names import SERVICE_SUBNET, Tag

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

CHECK = "way out"
BLOCKED = "block-bidirectional"
LEAST_FREE_ADDRESSES = 4
"""A subnet needs room for two masters, a node of the load balancer and an agent."""
DEFAULT_SUBNETS = {"default-for-az": ["true"]}
"""EC2's filter for the default subnets."""


def look(examination: Examination) -> list[Finding]:
    """Look at the routes of the subnets in use, of the builder's, and at the region's block."""
    region, spec = examination.region, examination.spec
    findings = list(assess_block(account_facts.public_access_block(region)))
    findings += _machine_subnets(spec, region)
    if examination.subject.builders and not spec.bake.subnet:
        findings += assess_builder(subnet_routes.subnets(region, DEFAULT_SUBNETS))
    return findings or [ok(CHECK, "the cluster makes its own subnets and gateway")]


def _machine_subnets(spec: ClusterSpec, region: str) -> list[Finding]:
    """The findings about the subnets in which machines are or will be."""
    if filters := existing_subnet_filters(spec):
        given = subnet_routes.subnets(region, filters)
        return list(assess_existing(given, spec.zones))
    if spec.network.mode == "private" and spec.network.nat == "none":
        return [ok(CHECK, "machines reach AWS through endpoints and have no other way out")]
    own = subnet_routes.subnets(region, {f"tag:{Tag.CLUSTER}": [spec.name]})
    machines = [item for item in own if item.tags.get(Tag.ROLE) != SERVICE_SUBNET]
    return list(assess_subnets(machines))


def assess_existing(subnets: Sequence[SubnetFacts], zones: Sequence[str]) -> Iterable[Finding]:
    """The findings about the subnets of an existing VPC: one in each zone, of one VPC. Pure."""
    yield from _places(subnets, zones)
    for subnet in subnets:
        yield from _usability(subnet)
    if len(subnets) == len(zones):
        yield ok(CHECK, f"{len(subnets)} existing subnets in {', '.join(zones)}")


def _places(subnets: Sequence[SubnetFacts], zones: Sequence[str]) -> Iterable[Finding]:
    for zone in zones:
        ids = [subnet.subnet_id for subnet in subnets if subnet.zone == zone]
        if len(ids) != 1:
            listed = ", ".join(ids) or "none"
            remedy = "correct network.existing: exactly one subnet in each of network.zones"
            yield error(CHECK, f"{len(ids)} subnets match in {zone}: {listed}", remedy)
    if len(vpcs := sorted({subnet.vpc_id for subnet in subnets})) > 1:
        yield error(CHECK, f"the subnets are of {len(vpcs)} VPCs", "name subnets of one VPC")


def _usability(subnet: SubnetFacts) -> Iterable[Finding]:
    if not subnet.way_out:
        yield warning(
            CHECK,
            f"{subnet.subnet_id} in {subnet.zone} has no route to 0.0.0.0/0",
            "nothing, if the VPC has endpoints of EC2, SQS, SSM, STS and S3",
        )
    if subnet.free_addresses < LEAST_FREE_ADDRESSES:
        yield error(
            CHECK,
            f"{subnet.subnet_id} has {subnet.free_addresses} free addresses",
            f"choose a subnet with at least {LEAST_FREE_ADDRESSES}",
        )


def assess_block(mode: str) -> Iterable[Finding]:
    """The findings about VPC Block Public Access. Pure."""
    if mode == BLOCKED:
        yield error(
            CHECK,
            f"VPC Block Public Access forbids internet gateways in this region ({mode})",
            "exclude the cluster's VPC from it, or use subnets with another way out",
        )


def assess_subnets(subnets: Sequence[SubnetFacts]) -> Iterable[Finding]:
    """The findings about the cluster's own subnets. Pure."""
    for subnet in subnets:
        if not subnet.way_out:
            detail = f"{subnet.subnet_id} in {subnet.zone} has no route to 0.0.0.0/0"
            yield error(CHECK, detail, "run mesaform up, which makes the route again")
    if subnets and all(subnet.way_out for subnet in subnets):
        yield ok(CHECK, f"{len(subnets)} subnets of the cluster have a default route")


def assess_builder(defaults: Sequence[SubnetFacts]) -> Iterable[Finding]:
    """The findings about where an image is built: the first default subnet. Pure."""
    if not defaults:
        yield warning(
            CHECK,
            "this region has no default subnet: images are built in a temporary VPC",
            "nothing, or set bake.subnet to a subnet with a way out",
        )
        return
    first = defaults[0]
    if not first.way_out:
        yield error(
            CHECK,
            f"{first.subnet_id}, in which the image is built, has no route to 0.0.0.0/0",
            "add the route, or set bake.subnet to a subnet with a way out",
        )
    else:
        yield ok(CHECK, f"the image is built in {first.subnet_id}, out by {first.way_out}")
