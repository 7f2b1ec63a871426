"""Subnets that machines may be launched in, and whether their routes lead to the internet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesaform.aws.client import client
from mesaform.aws.resources.kind import Raw, call, pages, tag_map

ANYWHERE = "0.0.0.0/0"
WAYS_OUT = ("GatewayId", "NatGatewayId", "TransitGatewayId", "NetworkInterfaceId", "InstanceId")
"""Targets of a default route; which of them leads out is for their owners to know."""


@dataclass(frozen=True, slots=True)
class SubnetFacts:
    """A subnet. `way_out` is the target of its default route, empty without one.

    `free_addresses` is EC2's count.
    """

    subnet_id: str
    vpc_id: str
    zone: str
    way_out: str
    tags: Mapping[str, str]
    free_addresses: int = 0


def subnets(region: str, filters: Mapping[str, Sequence[str]]) -> list[SubnetFacts]:
    """The subnets that match EC2's filters, with their ways out.

    Raises:
        CloudError: EC2 refused or did not answer.

    """
    ec2 = client("ec2", region)
    asked = [{"Name": name, "Values": list(values)} for name, values in filters.items()]
    listed = [
        raw
        for page in pages(ec2, "describe_subnets", "ec2 DescribeSubnets", Filters=asked)
        for raw in page["Subnets"]
    ]
    tables = _tables(region, sorted({raw["VpcId"] for raw in listed}))
    return [
        SubnetFacts(
            raw["SubnetId"],
            raw["VpcId"],
            raw["AvailabilityZone"],
            _way_out(_table_of(raw, tables)),
            tag_map(raw.get("Tags")),
            int(raw.get("AvailableIpAddressCount", 0)),
        )
        for raw in sorted(listed, key=lambda raw: str(raw["AvailabilityZone"]))
    ]


def _tables(region: str, vpc_ids: Sequence[str]) -> list[Raw]:
    if not vpc_ids:
        return []
    filters = [{"Name": "vpc-id", "Values": list(vpc_ids)}]
    where = "ec2 DescribeRouteTables"
    answer = call(client("ec2", region), "describe_route_tables", where, Filters=filters)
    return list(answer["RouteTables"])


def _table_of(subnet: Raw, tables: Sequence[Raw]) -> Raw:
    """The route table of a subnet: its own, or the main one of its VPC."""
    main: Raw = {}
    for table in tables:
        if table["VpcId"] != subnet["VpcId"]:
            continue
        for association in table.get("Associations", ()):
            if association.get("SubnetId") == subnet["SubnetId"]:
                return table
            if association.get("Main"):
                main = table
    return main


def _way_out(table: Raw) -> str:
    for route in table.get("Routes", ()):
        if route.get("DestinationCidrBlock") == ANYWHERE and route.get("State") != "blackhole":
            return next((str(route[key]) for key in WAYS_OUT if route.get(key)), "")
    return ""
