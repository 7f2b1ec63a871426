"""Whether machines and the builder reach the internet, and whether the account forbids it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesaform.aws import account_facts, subnet_routes
from mesaform.aws.subnet_routes import SubnetFacts
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Examination
from mesaform.topology.names import Tag

CHECK = "way out"
BLOCKED = "block-bidirectional"
DEFAULT_SUBNETS = {"default-for-az": ["true"]}
"""EC2's filter for the default subnets."""


def look(examination: Examination) -> list[Finding]:
    """Look at the routes of the subnets in use, of the builder's, and at the region's block."""
    region, spec = examination.region, examination.spec
    findings = list(assess_block(account_facts.public_access_block(region)))
    own = subnet_routes.subnets(region, {f"tag:{Tag.CLUSTER}": [spec.name]})
    findings += assess_subnets(own)
    if examination.subject.builders and not spec.bake.subnet:
        findings += assess_builder(subnet_routes.subnets(region, DEFAULT_SUBNETS))
    return findings or [ok(CHECK, "the cluster makes its own subnets and gateway")]


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
