"""The zones of a cluster whose file names none: chosen from the account at the first `mesaform up`.

Which zones an account has, and what they sell, differs between accounts: new accounts have no zone
`b` in Tokyo and two zones in Northern California. The choice is part of the deployment's record, so
that it never moves a machine. The choice itself is pure; `settle` asks EC2.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mesaform.common.errors import MissingPrerequisite
from mesaform.config.network import ZONES, zone_problems
from mesaform.config.schema import ClusterSpec
from mesaform.provision.deployment import Deployment, read_deployment

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef

OPTED_IN = ("opt-in-not-required", "opted-in")


def with_zones(spec: ClusterSpec, zones: Sequence[str]) -> ClusterSpec:
    """The spec with these zones where its file names none."""
    if spec.network.zones or not zones:
        return spec
    network = spec.network.model_copy(update={"zones": tuple(zones)})
    return spec.model_copy(update={"network": network})


def with_recorded_zones(spec: ClusterSpec, deployment: Deployment | None) -> ClusterSpec:
    """The spec with the zones of its deployment where its file names none."""
    return with_zones(spec, deployment.zones if deployment else ())


def settle(spec: ClusterSpec, folder: Path) -> ClusterSpec:
    """The spec with zones: of its file, of its deployment, else chosen from the account. Blocks.

    A deployment from before zones were recorded keeps the region's a, b and c.

    Raises:
        MissingPrerequisite: too few zones sell the types of the cluster's first machines.
        BadInput: the deployment's record cannot be read.
        CloudError: EC2 did not answer.

    """
    if spec.network.zones:
        return spec
    deployment = read_deployment(folder)
    if deployment is not None:
        return with_recorded_zones(spec, deployment)
    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors

    ec2: EC2Client = client("ec2", spec.region)
    with translate_errors("zones of the region"):
        available, sold = _available(ec2), _sold(ec2, first_types(spec))
    return with_zones(spec, choose_zones(spec.region, available, sold))


def first_types(spec: ClusterSpec) -> tuple[str, ...]:
    """The types of the machines that Terraform creates."""
    pools = (pool.types[0] for pool in spec.agents if pool.count)
    return tuple(dict.fromkeys((spec.masters.type, *pools)))


def choose_zones(
    region: str, available: Collection[str], sold: Mapping[str, Collection[str]]
) -> tuple[str, ...]:
    """The first zones by name that sell every type.

    Args:
        region: the region, for the message.
        available: the zones of the account.
        sold: the zones that sell each type.

    Raises:
        MissingPrerequisite: they are fewer than a cluster needs.

    """
    usable = [zone for zone in sorted(available) if all(zone in zones for zones in sold.values())]
    chosen = tuple(usable[:ZONES])
    if problems := zone_problems(chosen, region) if chosen else ["no zone is usable"]:
        raise MissingPrerequisite(
            f"{region}: {problems[0]}. This account has {_listed(available)}. "
            + "; ".join(f"{name} is sold in {_listed(zones)}" for name, zones in sold.items()),
            where="network.zones",
            fix="choose other types, or another region; or name the zones in cluster.yaml",
        )
    return chosen


def zones_of_deployment(region: str, deployment_id: str) -> tuple[str, ...]:
    """The zones of a deployment's subnets, in the order of their addresses. Blocks.

    Raises:
        CloudError: EC2 did not answer.

    """
    from ipaddress import IPv4Network

    from mesaform.aws.client import client
    from mesaform.aws.errors import translate_errors
    from mesaform.topology.names import Tag

    filters: list[FilterTypeDef] = [{"Name": f"tag:{Tag.DEPLOYMENT}", "Values": [deployment_id]}]
    with translate_errors("ec2 DescribeSubnets"):
        ec2: EC2Client = client("ec2", region)
        subnets = ec2.describe_subnets(Filters=filters)["Subnets"]
    subnets.sort(key=lambda subnet: IPv4Network(subnet["CidrBlock"]))
    return tuple(dict.fromkeys(subnet["AvailabilityZone"] for subnet in subnets))


def _available(ec2: EC2Client) -> list[str]:
    filters: list[FilterTypeDef] = [
        {"Name": "zone-type", "Values": ["availability-zone"]},
        {"Name": "state", "Values": ["available"]},
    ]
    zones = ec2.describe_availability_zones(Filters=filters)["AvailabilityZones"]
    return [
        zone["ZoneName"]
        for zone in zones
        if zone.get("OptInStatus", OPTED_IN[0]) in OPTED_IN
        and zone.get("ZoneType", "availability-zone") == "availability-zone"
    ]


def _sold(ec2: EC2Client, types: Sequence[str]) -> dict[str, set[str]]:
    """The zones that sell each type."""
    filters: list[FilterTypeDef] = [{"Name": "instance-type", "Values": list(types)}]
    paginator = ec2.get_paginator("describe_instance_type_offerings")
    sold: dict[str, set[str]] = {name: set() for name in types}
    for page in paginator.paginate(LocationType="availability-zone", Filters=filters):
        for item in page["InstanceTypeOfferings"]:
            sold[item["InstanceType"]].add(item["Location"])
    return sold


def _listed(zones: Iterable[str]) -> str:
    return ", ".join(sorted(zones)) or "no zone"
